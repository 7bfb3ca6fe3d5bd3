"""Greenlets: calls that lie at the same address of the same stack. For each call: when it was about to begin, when
what it runs began and ended, and when it had returned."""
import os
import sys
import time

import greenlet

calls = []


class Order:
    def __init__(self, number):
        self.number = number

    def __str__(self):
        self.inside = time.monotonic_ns()
        for _ in range(self.number % 3):
            main.switch()
        self.inner = time.monotonic_ns()
        return "order"


def serve(first):
    for number in range(first, first + CALLS):
        order = Order(number)
        begin = time.monotonic_ns()
        text = str(order)
        end = time.monotonic_ns()
        assert text == "order"
        calls.append((begin, order.inside, order.inner, end))


main = greenlet.getcurrent()
CALLS = int(sys.argv[2])
os.write(1, b"ready %d\n" % os.getpid())
os.read(0, 1)
waiting = [greenlet.greenlet(serve) for _ in range(int(sys.argv[1]))]
for place, one in enumerate(waiting):
    one.switch(place)
while waiting:
    waiting = [one for one in waiting if not one.dead]
    for one in waiting:
        one.switch()
for call in calls:
    os.write(1, b"%d %d %d %d\n" % call)
os.write(1, b"done\n")
os.read(0, 1)
os._exit(0)
