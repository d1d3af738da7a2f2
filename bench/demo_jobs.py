#!/usr/bin/env python3
"""make demo-jobs: certificates renewed by jobs, while the daemon and the workers are killed at random, and a verdict.

    1. Every device gets a certificate, and a job that renews it is queued.
    2. Five workers renew over HTTP. For a minute, kill -9 ends the daemon or one of them every few seconds.
    3. Each device has one new certificate. Log, tables and API agree.

    bench/demo_jobs.py [--devices 10000] [--seconds 60] [--seed N]
"""
import argparse, collections, json, os, random, signal, subprocess, sys, threading, time, urllib.error, urllib.request

TENANT, KIND, WORKERS, LEASE_SECONDS = "acme", "site.renew", 5, 5


class Worker:
    """Renews certificates. A new process of the same name takes the place of one that was killed."""

    def __init__(self, http, token, name):
        self.base, self.token, self.name = f"http://{http}/api/v1", token, name
        self.leases = {}

    def post(self, path, body, key=None, until=None):
        """The answer's object; repeats what may not have arrived. None: refused, or the lease is over."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        if key:
            headers["Idempotency-Key"] = key
        while until is None or time.monotonic() < until:
            try:
                request = urllib.request.Request(self.base + path, json.dumps(body).encode(), headers, method="POST")
                with urllib.request.urlopen(request, timeout=70) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    print(f"{self.name}: {path}: {error.read().decode()}", file=sys.stderr, flush=True)
                    return None
            except (OSError, ValueError):
                pass  # the daemon was killed
            time.sleep(0.2)

    def run(self):
        while True:
            leased = self.post("/jobs/lease", {
                "worker": self.name, "kinds": [KIND], "count": 20, "lease_seconds": LEASE_SECONDS, "wait_seconds": 20})
            end = time.monotonic() + LEASE_SECONDS - 1
            items = []
            for job in (leased or {}).get("items", []):
                argument = job["arguments"]
                # The job is the key: whoever runs it again gets the certificate that was issued.
                issued = self.post(f"/tenants/{TENANT}/certificates", {
                    "device": argument["device"], "generate_key": "P-256", "renews": argument["certificate"],
                }, key=f"job-{job['id']}", until=end)
                if issued:
                    items.append({"id": job["id"], "token": job["token"], "outcome": "succeeded",
                                  "result": f"{issued['items'][0]['authority']}/{issued['items'][0]['serial']}"})
            if items:
                self.post("/jobs/results", {"worker": self.name, "items": items})


class Demo:
    def __init__(self, options):
        global world
        import world
        self.random = random.Random(options.seed)
        self.devices = [f"dev-{n:05d}" for n in range(1, options.devices + 1)]
        self.broker, self.database = world.Broker(), world.Database()
        self.refold = world.Refold(self.broker, self.database)
        self.token = open(f"{self.refold.data}/token").read().strip()
        self.workers, self.wrong = {}, []
        print(f"pages: http://{self.refold.http}/", flush=True)

    def check(self, what, is_so, detail=""):
        print(f"  {'ok   ' if is_so else 'WRONG'} {what}{'' if is_so else ': ' + str(detail)}", flush=True)
        if not is_so:
            self.wrong.append(what)

    def start(self, name):
        self.workers[name] = world.start(
            [sys.executable, __file__, "--worker", name, "--http", self.refold.http, "--token", self.token],
            stderr=open(f"{world.work}/{name}.err", "a"))

    def queue(self):
        self.refold.post(f"/tenants/{TENANT}/authorities", {"id": "fleet"})
        self.old = {}
        for first in range(0, len(self.devices), 1000):
            items = [{"device": d, "generate_key": "P-256"} for d in self.devices[first:first + 1000]]
            for item in self.refold.post(f"/tenants/{TENANT}/certificates", {"items": items})["items"]:
                self.old[item["device"]] = f"{item['authority']}/{item['serial']}"
        jobs = [{"kind": KIND, "key": d, "arguments": {"device": d, "certificate": self.old[d]},
                 "queue": self.random.choice(["critical", "high", "normal", "low"])} for d in self.devices]
        # Twice: the key leaves one job for each device.
        for _ in range(2):
            for first in range(0, len(jobs), 1000):
                self.refold.post(f"/tenants/{TENANT}/jobs", {"items": jobs[first:first + 1000]})
        print(f"{len(jobs)} certificates issued, and a job queued for each", flush=True)

    def open_jobs(self):
        statistics = json.loads(self.refold.get("/api/queue/statistics"))
        return statistics["queued"] + statistics["running"]

    def renew(self, seconds):
        begun, kills = time.monotonic(), collections.Counter()
        for number in range(WORKERS):
            self.start(f"worker-{number + 1}")
        while time.monotonic() < begun + seconds:
            time.sleep(self.random.uniform(0.5, 4))
            if self.random.random() < 0.4:
                self.refold.kill()
                self.refold.up()
                kills["daemon"] += 1
            elif self.random.random() < 0.3:
                # It sleeps through its leases, and reports when it wakes.
                process = self.workers[self.random.choice(sorted(self.workers))]
                process.send_signal(signal.SIGSTOP)
                threading.Timer(LEASE_SECONDS + 2, process.send_signal, [signal.SIGCONT]).start()
                kills["stopped"] += 1
            else:
                name = self.random.choice(sorted(self.workers))
                self.workers[name].kill()
                self.workers[name].wait()
                self.start(name)
                kills["worker"] += 1
        left = self.open_jobs()
        print(f"  {kills['daemon']} times the daemon and {kills['worker']} times a worker was killed, "
              f"{kills['stopped']} times one slept through its leases; {left} jobs left", flush=True)
        world.wait_for("the last jobs", lambda: self.open_jobs() == 0, 300, every=0.2)
        print(f"  all jobs ended {time.monotonic() - begun:.0f} s after the first one started", flush=True)
        for process in self.workers.values():
            world.stop(process)

    def events(self):
        cat = subprocess.run([world.REFOLD, "log", "cat", "--data", self.refold.data, "--json"], capture_output=True, text=True)
        counts, issued = collections.Counter(), collections.Counter()
        ended = collections.Counter()
        for line in cat.stdout.splitlines():
            event = json.loads(line)
            topic = event["topic"].split("/")[0]
            if topic == "certificate.issued" and event["payload"].get("renews"):
                issued[event["payload"]["device_id"]] += 1
            elif topic in ("job.succeeded", "job.queued", "job.rescued"):
                counts[topic] += len(event["payload"]["jobs"])
                if topic == "job.succeeded":
                    ended.update(job["id"] for job in event["payload"]["jobs"])
            elif topic.startswith("job."):
                counts[topic] += 1
        return counts, issued, ended

    def verify(self):
        counts, issued, ended = self.events()
        print("  in the log: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())), flush=True)
        count = len(self.devices)
        self.check(f"{count} jobs were queued, one for each device", counts["job.queued"] == count, counts["job.queued"])
        self.check("each job succeeded once", len(ended) == count and set(ended.values()) == {1})
        self.check("each device has one new certificate", set(issued) == set(self.devices) and set(issued.values()) == {1},
                   [d for d in self.devices if issued[d] != 1][:5])
        self.check("no job was poisoned or failed", counts["job.poisoned"] + counts["job.failed"] == 0, counts)
        world.wait_for("the tables", self.refold.caught_up, 120)
        rows = self.database.sql("select string_agg(status || ' ' || n, ', ') from "
                                 "(select status, count(*) n from refold.jobs group by status) s")
        self.check(f"the table jobs has them: {rows}", rows == f"SUCCEEDED {count}", rows)
        late = int(self.database.sql("select count(*) from refold.job_attempts where outcome = 'LATE'") or 0)
        self.check(f"and {late} late results", late <= counts["job.late"], counts["job.late"])
        statistics = json.loads(self.refold.get("/api/queue/statistics"))
        self.check("the statistics agree", statistics["completed_24h"] == count, statistics)
        done = subprocess.run([world.REFOLD, "replay", "verify", "--data", self.refold.data, "--database-url", self.database.url],
                              capture_output=True, text=True)
        self.check("the tables are the fold of the log (refold replay verify)", done.returncode == 0, done.stdout + done.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--worker")
    parser.add_argument("--http")
    parser.add_argument("--token")
    options = parser.parse_args()
    if options.worker:
        return Worker(options.http, options.token, options.worker).run()
    begun = time.time()
    print(f"seed {options.seed}", flush=True)
    try:
        demo = Demo(options)
        print("1. certificates and jobs", flush=True)
        demo.queue()
        print("2. five workers, and kill -9", flush=True)
        demo.renew(options.seconds)
        print("3. the verdict", flush=True)
        demo.verify()
    finally:
        if "world" in globals():
            world.end()
    print(f"{'done' if not demo.wrong else 'FAILED: ' + '; '.join(demo.wrong)} in {time.time() - begun:.0f} s")
    sys.exit(1 if demo.wrong else 0)


if __name__ == "__main__":
    main()
