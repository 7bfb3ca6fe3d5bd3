"""PostgreSQL: statements and errors on one backend; in a storm, new backends."""
import os
import shutil
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from speak import checksum, connect, serve

folder, binaries, template = sys.argv[1:4]
data = f"{folder}/data"
# A server does not run as root.
subprocess.run(["cp", "-a", template, data], check=True)
subprocess.run(["chown", "-R", "postgres", folder], check=True)
os.chmod(folder, 0o755)
server = subprocess.Popen(
    [f"{binaries}/postgres", "-D", data, "-p", "5432", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off",
     "-c", "autovacuum=off"],
    user="postgres", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Backend:
    """The simple query protocol (PostgreSQL's documentation, "Message Formats")."""

    def __init__(self):
        for _ in range(500):
            self.socket = connect(f"{folder}/.s.PGSQL.5432")
            self.stream = self.socket.makefile("rwb")
            start = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
            self.stream.write(struct.pack("!i", len(start) + 4) + start)
            self.stream.flush()
            self.pid = None
            if self.until_ready() is not None:
                return
            # It is starting up.
            self.socket.close()
            __import__("time").sleep(0.02)
        raise EOFError("no backend")

    def until_ready(self):
        got = []
        while True:
            head = self.stream.read(5)
            if len(head) < 5:
                return None
            kind, size = struct.unpack("!ci", head)
            body = self.stream.read(size - 4)
            if kind == b"K":
                self.pid = struct.unpack("!i", body[:4])[0]
            elif kind == b"D":
                got.append(body)
            elif kind == b"E":
                got.append([field for field in body.split(b"\0") if field[:1] in (b"C", b"M")])
            elif kind == b"Z":
                return got

    def ask(self, statement):
        body = statement.encode() + b"\0"
        self.stream.write(b"Q" + struct.pack("!i", len(body) + 4) + body)
        self.stream.flush()
        got = self.until_ready()
        if got is None:
            raise EOFError("the backend is gone")
        return got

    def close(self):
        self.stream.write(b"X" + struct.pack("!i", 4))
        self.stream.close()
        self.socket.close()


backend = Backend()


def work(storm):
    got, wrong, errors, broken = [], 0, 0, 0
    statements = 500
    for i in range(statements):
        if i % 10 == 3:
            errors += 1
            got.append(backend.ask("select 1/(x-x) from generate_series(1,2) x"))
        elif i % 10 == 7:
            broken += 1
            got.append(backend.ask("selekt 1"))
        else:
            got.append(backend.ask(f"select sum(x) from generate_series(1,{i}) x"))
    children = 0
    if storm:
        for i in range(20):
            other = Backend()
            answer = other.ask("select 1/(x-x) from generate_series(1,2) x" if i % 2 else f"select {i}")
            wrong += not answer
            got.append(answer)
            other.close()
            children += 30
    answer = {"sum": checksum(got), "calls": {"PortalRun": statements - broken, "pg_parse_query": statements},
              "failed": {"PortalRun": errors, "pg_parse_query": broken}, "wrong": wrong, "children": children}
    return answer


def end():
    backend.close()
    server.terminate()
    code = server.wait(20)
    shutil.rmtree(data, ignore_errors=True)
    return 54 if code == 0 else 55


serve([server.pid, backend.pid], work, end)
