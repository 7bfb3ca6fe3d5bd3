"""Greenlets that call the same function from the same place: same.py LIBRARY GREENLETS ROUNDS."""
import ctypes
import os
import sys

import greenlet

library = ctypes.PyDLL(sys.argv[1])
CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)
library.triple.argtypes = [CALLBACK, ctypes.c_int]
calls = 0


def switch(x):
    main.switch()
    return x


back = CALLBACK(switch)


def serve():
    global calls
    while True:
        calls += 1
        assert library.triple(back, calls) > 0


main = greenlet.getcurrent()
os.write(1, b"ready %d\n" % os.getpid())
os.read(0, 1)
servers = [greenlet.greenlet(serve) for _ in range(int(sys.argv[2]))]
for _ in range(int(sys.argv[3])):
    for server in servers:
        server.switch()
os.write(1, b"%d\ndone\n" % calls)
os.read(0, 1)
os._exit(0)
