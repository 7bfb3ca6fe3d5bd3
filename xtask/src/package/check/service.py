"""A network of its own for the image: a service that takes everything (202) over TLS, and a name server for it.

Under: unshare --net. Arguments: certificate, key, and a command; that is run, and its status answered. Prints a line for
each request that came and each name that was asked for.
"""
import http.server
import socket
import ssl
import subprocess
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        print("POST", self.headers["host"], self.path, flush=True)
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def names(server):
    """Answers every question for an IPv4 address with 127.0.0.1 (RFC 1035), others with nothing."""
    while True:
        question, sender = server.recvfrom(512)
        end = question.index(0, 12) + 5
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        asks_ipv4 = question[end - 4 : end - 2] == b"\0\1"
        print("NAME", ".".join(labels), flush=True)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if asks_ipv4 else b""
        counts = b"\0\1" + (b"\0\1" if asks_ipv4 else b"\0\0") + b"\0\0\0\0"
        server.sendto(question[:2] + b"\x81\x80" + counts + question[12:end] + answer, sender)


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.bind(("127.0.0.1", 53))
threading.Thread(target=names, args=(resolver,), daemon=True).start()
service = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
service.socket = context.wrap_socket(service.socket, server_side=True)
threading.Thread(target=service.serve_forever, daemon=True).start()
sys.exit(subprocess.run(sys.argv[3:], stdin=subprocess.DEVNULL).returncode)
