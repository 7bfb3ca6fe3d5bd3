"""nginx: one worker, kept connections, files and errors; in a storm, reloads."""
import http.client
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from speak import checksum, connect, free_port, serve

folder = sys.argv[1]
port = free_port()
paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
with open(f"{folder}/nginx.conf", "w") as file:
    file.write(f"""worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;
events {{ worker_connections 256; }}
http {{ access_log off; keepalive_requests 1000000; {paths}
server {{ listen 127.0.0.1:{port}; root {folder};
location /moved {{ return 302 /index.html; }}
location /broken {{ return 500; }} }} }}
""")
with open(f"{folder}/index.html", "w") as file:
    file.write("hello\n" * 100)
server = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
connect(("127.0.0.1", port)).close()


def workers():
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
asked = ["/index.html", "/moved", "/missing", "/broken", "/index.html"]


def work(storm):
    global client
    got, wrong = [], 0
    requests = 600
    for i in range(requests):
        client.request("GET", asked[i % len(asked)])
        answer = client.getresponse()
        got.append((answer.status, len(answer.read())))
        if storm and i % 150 == 149:
            before = set(workers())
            server.send_signal(signal.SIGHUP)
            client.close()
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            until = time.monotonic() + 20
            while before & set(workers()) or not workers():
                if time.monotonic() > until:
                    wrong += 1
                    break
                time.sleep(0.02)
    # A storm replaces the worker that was named: which one answers what, nobody knows from here.
    calls = {"ngx_http_process_request": requests, "ngx_http_send_header": requests}
    return {"sum": checksum(got), "calls": {name: 150 if storm else n for name, n in calls.items()}, "wrong": wrong,
            "children": 4 * requests if storm else 0, "replaced": storm}


def end():
    client.close()
    server.send_signal(signal.SIGQUIT)
    return 52 if server.wait(20) == 0 else 53


until = time.monotonic() + 20
while not workers() and time.monotonic() < until:
    time.sleep(0.02)
serve([server.pid] + workers(), work, end)
