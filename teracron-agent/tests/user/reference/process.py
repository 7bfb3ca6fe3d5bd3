"""A process that samples itself with the reference client, while the agent samples it from outside."""
import json
import os
import sys
import time

from teracron.collector import Collector

interval = float(sys.argv[1])
ballast = bytearray(os.urandom(1 << 20) * 150)
collector = Collector()
collector.collect()
print("ready", os.getpid(), flush=True)
due = time.monotonic() + interval
while True:
    # About 40 % of a core.
    busy = time.process_time() + 0.004
    while time.process_time() < busy:
        pass
    time.sleep(0.006)
    if time.monotonic() >= due:
        due += interval
        shot = collector.collect()
        print(
            json.dumps(
                {
                    "heap_total": shot.heap_total,
                    "heap_used": shot.heap_used,
                    "rss": shot.rss,
                    "cpu": shot.cpu_usage * 10_000,
                }
            ),
            flush=True,
        )
