#!/usr/bin/env python3
"""UmaDB, an event store (PyPI `umadb`): durable appends in batches, one client, the payloads that refold-bench appends.

Starts the server that the package brings, on a free loopback port, with a database of its own. Only the calls to
`append` are timed: building the events is the caller's, here as there. Prints one JSON object.
"""
import argparse, json, os, random, shutil, socket, subprocess, sys, tempfile, time

import umadb


def payload(number, device, rng):
    return (f'{{"ts":"2026-11-21T02:45:27.{rng.randrange(100, 1000)}Z","site_id":"site-{10 + device % 90}","seq":{number},'
            f'"metrics":{{"temperature_c":{rng.randrange(1800, 2700) / 100},"humidity_pct":{rng.randrange(300, 700) / 10},'
            f'"battery_v":{rng.randrange(3500, 4200) / 1000},"rssi_dbm":-{rng.randrange(40, 100)},"ok":true}}}}').encode()


def events(first, count, devices, rng):
    made = []
    for number in range(first, first + count):
        device = number % devices
        made.append(umadb.Event(event_type="telemetry", data=payload(number, device, rng),
                                tags=[f"dev-{100_000 + device}"]))
    return made


def connect(port, server):
    deadline = time.time() + 20
    while True:
        try:
            client = umadb.Client(f"http://127.0.0.1:{port}")
            client.head()
            return client
        except Exception as error:
            if server.poll() is not None or time.time() > deadline:
                raise SystemExit(f"umadb_bench: the server does not answer: {error}")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--devices", type=int, default=10_000)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="umadb-bench-", dir="/var/tmp")  # /tmp may be memory
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    program = os.path.join(os.path.dirname(sys.executable), "umadb")
    server = subprocess.Popen([program, "--listen", f"127.0.0.1:{port}", "--db-path", folder],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        client = connect(port, server)
        rng, done, seconds = random.Random(1), 0, 0.0
        while done < options.events:
            batch = events(done, options.batch, options.devices, rng)
            begin = time.perf_counter()
            client.append(batch)
            seconds += time.perf_counter() - begin
            done += len(batch)
        used = sum(os.stat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(folder) for name in names)
        print(json.dumps({"events": done, "batch": options.batch, "seconds": seconds, "events_per_second": done / seconds,
                          "bytes_per_event": used / done, "version": "0.7.8"}))
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
