"""Redis: commands, errors, scripts over two connections; in a storm, saves in forked children."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from speak import checksum, connect, free_port, serve

folder = sys.argv[1]
port = free_port()
server = subprocess.Popen(
    ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Client:
    def __init__(self):
        self.stream = connect(("127.0.0.1", port)).makefile("rwb")

    def send(self, *words):
        words = [str(word).encode() for word in words]
        self.stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        self.stream.flush()
        return self.answer()

    def answer(self):
        line = self.stream.readline()
        if not line:
            raise EOFError("the server is gone")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return (kind, rest)


clients = [Client(), Client()]


def work(storm):
    calls = {"processCommand": 0, "setCommand": 0, "getCommand": 0, "evalCommand": 0}
    got, wrong, children = [], 0, 0

    def send(client, *words):
        calls["processCommand"] += 1
        name = words[0] + "Command"
        if name in calls:
            calls[name] += 1
        return client.send(*words)

    for i in range(300):
        client = clients[i % 2]
        got.append(send(client, "set", f"k{i}", i * 7))
        got.append(send(client, "get", f"k{i}"))
        if i % 5 == 0:
            got.append(send(client, "lpush", f"k{i}", 1))  # of the wrong type
        if i % 10 == 0:
            got.append(send(client, "eval", "return redis.pcall('no-such-command')" if i % 20 else "error('x')", 0))
        if storm and i % 60 == 0:
            began = send(client, "bgsave")
            children += 1
            until = time.monotonic() + 20
            while time.monotonic() < until:
                info = send(client, "info", "persistence")
                if b"rdb_bgsave_in_progress:0" in info:
                    break
                time.sleep(0.02)
            if began[0] != b"+" or b"rdb_last_bgsave_status:ok" not in info:
                wrong += 1
    return {"sum": checksum(got), "calls": calls, "wrong": wrong, "children": children * 100}


def end():
    server.terminate()
    return 50 if server.wait(20) == 0 else 51


clients[0].send("flushall")
serve([server.pid], work, end)
