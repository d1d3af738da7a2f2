#!/usr/bin/env python3
"""make demo-ota: two rollouts to thousands of simulated devices over a real Mosquitto, and a verdict.

    1. A canary rollout of a good build: 2 % of the devices fail, 1 % say nothing. It ends COMPLETED.
    2. A bad build, of which most updates fail. It ends itself, early.

The daemon is killed (kill -9) in the middle of both and started again. What the devices were told and said is written
down by them; the outcome is counted from that, and from nothing of Refold's, and must be what Refold's tables say.

    bench/demo_ota.py [--devices 5000] [--seed 7]
"""
import argparse, collections, datetime, json, signal, subprocess, sys, time

from world import REFOLD, Broker, Database, Refold, end, start, stop, wait_for, work

TENANT = "acme"
GOOD, BAD = "2.0.0", "2.1.0"
SILENCE_SECONDS = 20   # so long a device may say nothing before it counts as unreachable
found = []             # what is wrong


def check(what, is_so, detail=""):
    print(f"  {'ok   ' if is_so else 'WRONG'} {what}{'' if is_so else ': ' + str(detail)}", flush=True)
    if not is_so:
        found.append(what)


class Told:
    """The devices' side: every command that came, every report that went."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        with open(self.path) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def of(self, campaign):
        """Per device: its last report, in the order in which it reported; and how often each of its commands came."""
        last, commands = {}, collections.Counter()
        for line in self.lines():
            if line["campaign_id"] != campaign:
                continue
            if line["event"] == "command":
                commands[line["device"], line["command_id"]] += 1
                last.setdefault(line["device"], None)
            else:
                last[line["device"]] = line["status"]
        return last, commands


class Demo:
    def __init__(self, devices, seed):
        self.devices = [f"dev-{n:04d}" for n in range(1, devices + 1)]
        self.broker, self.database = Broker(), Database()
        self.refold = Refold(self.broker, self.database)
        self.starts = [time.time()]
        self.told = Told(f"{work}/told.ndjson")
        self.fleet = start([
            REFOLD, "simulate", "--broker-url", f"mqtt://127.0.0.1:{self.broker.port}", "--devices", str(devices), "--tenants", "1",
            "--rate", "100", "--seed", str(seed), "--ota-failures", "0.02", "--ota-silent", "0.01", "--ota-step", "0.5",
            "--ota-bad-build", f"{BAD}=0.7", "--ota-ledger", self.told.path], stdout=open(f"{work}/fleet.out", "w"))
        wait_for("the fleet", lambda: self.number("select count(*) from refold.device_status where connected") == devices, 120)
        print(f"{devices} devices are connected", flush=True)

    def number(self, sql):
        return int(self.database.sql(sql) or -1)

    def campaign(self, number):
        row = self.database.sql("select row_to_json(c) from refold.ota_campaigns c where id = " + str(number))
        return json.loads(row) if row else {"status": None}

    def create(self, name, version, plan, threshold):
        firmware = self.refold.post(f"/tenants/{TENANT}/firmware", {
            "version": version, "file_url": f"https://firmware.example/{version}.bin", "checksum_sha256": "00" * 32})
        campaign = self.refold.post(f"/tenants/{TENANT}/campaigns", {
            "name": name, "firmware_version_id": firmware["id"], "devices": self.devices, "rollout_strategy": "canary",
            "abort_threshold": threshold, "plan": plan})["id"]
        self.refold.post(f"/tenants/{TENANT}/campaigns/{campaign}/start")
        return campaign

    def kill_when(self, campaign, count):
        """kill -9 as soon as so many devices have been told."""
        wait_for(f"{count} commands", lambda: len(self.told.of(campaign)[0]) >= count, 120)
        self.refold.kill()
        told = len(self.told.of(campaign)[0])
        self.starts.append(time.time())
        self.refold.up()
        print(f"  killed with {told} devices told, and started again", flush=True)

    def until(self, campaign, status, seconds):
        wait_for(f"campaign {campaign} to be {status}", lambda: self.campaign(campaign)["status"] == status, seconds, every=0.2)

    def settle(self):
        """Until the devices say no more of it, and what they said is in the tables."""
        def is_quiet():
            told = len(self.told.lines())
            time.sleep(2)
            return told == len(self.told.lines())
        wait_for("the last reports", is_quiet, 60)
        durable = self.refold.status()["log"]["durable"]
        wait_for("the tables", lambda: all((p["position"] or 0) >= durable - 1 for p in self.refold.status()["projections"]))

    def rows(self, campaign):
        sql = f"select coalesce(json_object_agg(device_id, status), '{{}}') from refold.ota_device_status where campaign_id = {campaign}"
        return json.loads(self.database.sql(sql))

    def compare(self, campaign):
        """Refold's tables beside what the devices wrote down."""
        last, commands = self.told.of(campaign)
        rows, row = self.rows(campaign), self.campaign(campaign)
        expected = {}
        for device in self.devices:
            said = last.get(device, "NOT TOLD")
            expected[device] = {"SUCCESS": "SUCCESS", "FAILED": "FAILED", None: "UNREACHABLE", "NOT TOLD": "SKIPPED"}.get(said, said)
        wrong = {d: (rows.get(d), expected[d]) for d in self.devices if rows.get(d) != expected[d]}
        check("every device stands where it says", not wrong, f"{len(wrong)} do not, e.g. {list(wrong.items())[:3]}")
        count = collections.Counter(expected.values())
        counted = {"succeeded": count["SUCCESS"], "failed": count["FAILED"] + count["UNREACHABLE"] + count["TIMED_OUT"]}
        check(f"the counts are {counted}", all(row[k] == v for k, v in counted.items()), {k: row[k] for k in counted})
        check("nobody was sent for twice", len(commands) == len(last), f"{len(commands)} commands for {len(last)} devices")
        repeated = {key: n for key, n in commands.items() if n > 1}
        forbidden = self.repeated_although_known(campaign)
        check(f"no command that the log knows to have arrived was sent again ({len(repeated)} others were)", not forbidden,
              list(forbidden)[:3])
        return count

    def repeated_although_known(self, campaign):
        """Commands that came again after a start of the daemon before which the log said that they had arrived: by the
        broker's acknowledgement, or by what the device said."""
        known = {}
        cat = subprocess.run([REFOLD, "log", "cat", "--data", self.refold.data, "--json"], capture_output=True, text=True)
        dispatched = {}
        for line in cat.stdout.splitlines():
            event = json.loads(line)
            body = event.get("payload")
            if not isinstance(body, dict) or body.get("campaign_id") != campaign:
                continue
            if event["topic"] == "campaign.dispatched/2":
                dispatched[event["position"]] = body["devices"]
            elif event["topic"] == "campaign.published/1":
                for batch in body["batches"]:
                    for device in batch.get("devices") or dispatched.get(batch["command"], []):
                        known.setdefault((device, batch["command"]), event["received_at"])
            elif event["topic"].endswith("/ota/status"):
                known.setdefault((event["topic"].split("/")[3], body["command_id"]), event["received_at"])
        check("the log knows of commands that arrived", known, cat.stderr[-300:])
        wrong, seen = set(), set()
        for line in self.told.lines():
            key = line["device"], line.get("command_id")
            if line["event"] != "command" or line["campaign_id"] != campaign:
                continue
            begun = max(s for s in self.starts if s <= seconds(line["at"]))
            if key in seen and key in known and seconds(known[key]) < begun:
                wrong.add(key)
            seen.add(key)
        return wrong


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    begun = time.time()
    timeouts = {"acknowledge_seconds": SILENCE_SECONDS, "download_seconds": 60, "install_seconds": 60}
    stages = [{"percent": p, "soak_seconds": 1} for p in (1, 10, 50)] + [{"percent": 100}]
    try:
        demo = Demo(options.devices, options.seed)
        n = options.devices

        print(f"a good build, in stages of 1, 10, 50 and 100 %: 2 % will fail, 1 % will say nothing", flush=True)
        good = demo.create("good", GOOD, {"tick_seconds": 1, "stages": stages, "timeouts": timeouts}, 0.1)
        demo.kill_when(good, n * 3 // 100)
        demo.kill_when(good, n * 30 // 100)
        demo.until(good, "COMPLETED", 240)
        demo.settle()
        count = demo.compare(good)
        check("2 % failed and 1 % said nothing", 0.01 * n < count["FAILED"] < 0.03 * n and 0 < count["UNREACHABLE"] < 0.02 * n, count)
        check("nobody is left over", count["SUCCESS"] + count["FAILED"] + count["UNREACHABLE"] == n, count)

        print("a bad build, in the same stages: most updates will fail", flush=True)
        bad = demo.create("bad", BAD, {"tick_seconds": 1, "stages": stages, "timeouts": timeouts}, 0.1)
        demo.kill_when(bad, n // 200)
        demo.until(bad, "ABORTED", 120)
        demo.settle()
        # Whoever was told before the end and says nothing is still waited for.
        wait_for("the silent ones", lambda: demo.number(
            f"select count(*) from refold.ota_device_status where campaign_id = {bad} "
            "and status in ('PENDING', 'DOWNLOADING', 'INSTALLING', 'VERIFYING')") == 0, SILENCE_SECONDS + 60, every=0.2)
        count = demo.compare(bad)
        told = n - count["SKIPPED"]
        check(f"it ended early: {told} of {n} devices were told", told <= n // 50, told)
        stop(demo.fleet, signal.SIGTERM)
    finally:
        end()
    print(f"{'WRONG: ' + ', '.join(found) if found else 'RIGHT'} ({time.time() - begun:.0f} s)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
