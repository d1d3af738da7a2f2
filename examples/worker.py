#!/usr/bin/env python3
"""A worker for Refold's jobs, with Python's standard library only.

    REFOLD_TOKEN=$(cat data/token) python3 examples/worker.py http://127.0.0.1:7480 report.monthly

It leases one job at a time, sends heartbeats while it works, and reports. SIGTERM lets the running job end.
"""
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

WORKER = f"{socket.gethostname()}-{os.getpid()}"
LEASE_SECONDS = 30
stopping = threading.Event()


def post(url, body, timeout=60):
    """The answer; None when the daemon is away. Raises HTTPError for any other refusal."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {
        "Content-Type": "application/json", "Authorization": "Bearer " + os.environ["REFOLD_TOKEN"]})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code not in (502, 503, 504):
            raise
    except OSError:
        pass
    return None


def work(job):
    """Does the job: may run twice for the same id, so its effects must be safe to repeat."""
    return "hello " + str(job.get("arguments"))


def run(base, job):
    url, ended = f"{base}/api/v1/jobs/{job['id']}", threading.Event()
    attempt = {"worker": WORKER, "token": job["token"]}

    def beat():
        while not ended.wait(LEASE_SECONDS / 3):
            try:
                post(url + "/heartbeat", attempt)
            except urllib.error.HTTPError:
                return  # the attempt was ended; its result will be late, and change nothing

    threading.Thread(target=beat, daemon=True).start()
    try:
        result = {"outcome": "succeeded", "result": work(job)}
    except Exception as error:  # whatever it is, the daemon decides about the next attempt
        result = {"outcome": "failed", "error": repr(error)}
    ended.set()
    # Safe to repeat: the daemon records a result once.
    while (answer := post(url + "/result", attempt | result)) is None:
        time.sleep(1)
    print(f"job {job['id']} {result['outcome']}: {answer['status']}", flush=True)


def main(base, kinds):
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    lease = {"worker": WORKER, "kinds": kinds, "lease_seconds": LEASE_SECONDS, "wait_seconds": 5}
    while not stopping.is_set():
        answer = post(f"{base}/api/v1/jobs/lease", lease)
        if answer is None:
            stopping.wait(2)
        for job in (answer or {}).get("items", []):
            run(base, job)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
