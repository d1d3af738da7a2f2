#!/usr/bin/env python3
"""Ledger soak: a fleet over Mosquitto, RabbitMQ and nats-server, one daemon, one PostgreSQL, and faults by seed.

    SOAK_MINUTES=120 SEED=1 bench/soak/soak.py          SOAK_FAULTS=kill_refold,fill_disk: only these; -fill_disk: all but this

Exit code 0: nothing lost, nothing recorded twice on Mosquitto, never healthy while a visible fault was in force, the
tables agree with the naive fold. 1: one of these is not so; the work folder is kept. See bench/NOTES.md.
"""
import os, random, signal, sys, time, traceback

import check, faults, mqtt, processes
from brokers import NATS, Mosquitto, PostgreSQL, RabbitMQ
from daemon import REFOLD, Clock, Daemon
from fleet import Fleet

MINUTES = float(os.environ.get("SOAK_MINUTES", 120))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
RATE = float(os.environ.get("SOAK_RATE", 300))
CHOSEN = faults.choose(set(filter(None, os.environ.get("SOAK_FAULTS", "").split(","))))


class Site:
    """Everything that runs, and what went wrong."""

    def __init__(self):
        self.work = processes.make_work_folder()
        self.began = time.monotonic()
        self.journal = open(f"{self.work}/journal", "w")
        self.active, self.settling, self.violations, self.dealt = [], [], [], {}
        self.clock, self.acknowledge_at = Clock(self.work), 0
        self.disk = f"{self.work}/disk"
        self.has_small_disk = os.geteuid() == 0 and processes.mount_small(
            self.disk, f"{96 + int(MINUTES * RATE * 60 * 90 / (1 << 20))}m")
        os.makedirs(self.disk, exist_ok=True)
        self.brokers = {b.name: b for b in (Mosquitto(self.work), RabbitMQ(self.work), NATS(self.work))}
        self.postgresql = PostgreSQL(self.work)
        for server in (*self.brokers.values(), self.postgresql):
            server.start()
        self.postgresql.sql("CREATE DATABASE second")
        all_brokers = list(self.brokers.values())
        self.refold = Daemon(self.work, "refold", f"{self.disk}/data", all_brokers, self.postgresql.url, self.clock)
        self.second = Daemon(self.work, "second", f"{self.work}/second", all_brokers,
                             self.postgresql.url.replace("/postgres?", "/second?"), self.clock)
        self.history = check.History(self.refold.data)
        self.start_refold()
        self.refold.wait_until_subscribed()
        self.history.start()
        self.fleets = {name: Fleet(b, RATE / len(self.brokers), SEED) for name, b in self.brokers.items()}

    def log(self, text):
        line = f"{time.monotonic() - self.began:8.1f} s  {text}"
        print(line, file=self.journal, flush=True)
        print(line, flush=True)

    def violate(self, text):
        self.violations.append(text)
        self.log(f"VIOLATION {text}")

    def is_busy(self, targets):
        return any(fault.targets & targets for fault in self.active + self.settling)

    def start_refold(self):
        self.refold.start()

    def died(self, code):
        tail = self.refold.process.tail(1500)
        names = ", ".join(f.name for f in self.active) or "nothing"
        self.violate(f"refold ended by itself with {code} while {names} was in force")
        self.log(tail)
        self.start_refold()

    def durable(self):
        status = self.refold.status()
        return status["log"]["durable"] if status else None

    def wait_until_recorded(self, seconds):
        """The fleet of one broker is calm: waits until Refold is subscribed and has recorded what the broker had."""
        until, name = time.monotonic() + seconds, "mosquitto"
        ready = 0
        while time.monotonic() < until:
            status = self.refold.status(timeout=1)
            subscribed = status and any(b["name"] == name and b["subscribed"] for b in status["brokers"])
            ready = ready + 1 if subscribed and status["state"] != "held" else 0
            if ready >= 5:
                return True
            time.sleep(0.1)
        return False

    def forget_sessions_of_second(self):
        """Ends the sessions that only the second instance has: the brokers would queue for them for ever."""
        own, other = (self.client_ids(d) for d in (self.refold, self.second))
        for broker in self.brokers.values():
            for client_id in other - own:
                try:
                    link = mqtt.Link(broker.port)
                    link.send(mqtt.connect(client_id, clean=True))
                    link.wait(2)
                    link.send(mqtt.GOODBYE)
                    link.close()
                except OSError:
                    pass

    def client_ids(self, daemon):
        import base64, json
        found = set()
        with open(daemon.events(f"{self.work}/connections", ["--kind", "connection"])) as f:
            for line in f:
                body = json.loads(base64.b64decode(json.loads(line).get("payload_base64") or "e30="))
                if "client_id" in body:
                    found.add(body["client_id"])
        return found

    # MARK: Course

    def run(self):
        for fleet in self.fleets.values():
            fleet.start()
        watcher = check.Watcher(self)
        watcher.start()
        dice = random.Random(SEED)
        deck = faults.shuffle(dice, CHOSEN)
        until, next_at, waiting = time.monotonic() + MINUTES * 60, time.monotonic() + 3, None
        while time.monotonic() < until:
            self.end_faults(lambda f: f.until <= time.monotonic())
            if time.monotonic() >= next_at and len(self.active) < 3:
                waiting = waiting or next(deck)
                if not self.is_busy(faults.NEEDS[waiting]):
                    self.begin(waiting, dice)
                    waiting = None
                    next_at = time.monotonic() + dice.expovariate(1 / 5)
            self.acknowledge(watcher.last)
            time.sleep(0.05)
        self.end_faults(lambda f: True)
        self.log("faults are over")
        processes.wait_for("every server is up", lambda: self.end_faults(lambda f: True) or not self.settling, 120)
        if self.refold.stderr.is_closed:
            # Its lines are dropped until the next start, and it says so: it would never be healthy.
            self.refold.stop()
            self.start_refold()
        self.finish(watcher)

    def begin(self, function, dice):
        self.log(f"{function.__name__} …")
        fault = function(self, dice)
        if fault:
            self.dealt[fault.name] = self.dealt.get(fault.name, 0) + 1
            self.active.append(fault)
            self.log(f"{fault.name} for {fault.until - fault.began:.1f} s")

    def end_faults(self, condition):
        for fault in [f for f in self.active if condition(f)]:
            self.active.remove(fault)
            fault.end()
            self.settling.append(fault)
            self.log(f"{fault.name} ended")
        self.settling = [f for f in self.settling if not f.settled()]

    def finish(self, watcher):
        time.sleep(3)
        for name, fleet in self.fleets.items():
            if not fleet.calm(60):
                self.violate(f"{name} does not acknowledge what was published")
        try:
            self.wait_until_quiet()
        except TimeoutError as error:
            status = self.refold.status() or {}
            self.violate(f"it does not come to rest: {error}: {status.get('state')} {status.get('reasons')}; "
                         f"{[(p['name'], p['position']) for p in status.get('projections', [])]}")
        watcher.is_ending = True
        watcher.join()
        for fleet in self.fleets.values():
            fleet.end()
        self.judge(watcher)

    def wait_until_quiet(self):
        """Subscribed, healthy, folded, and nothing arrived for longer than NATS takes to redeliver."""
        state = {"durable": None, "since": time.monotonic()}
        def quiet():
            status = self.refold.status()
            if not status:
                return False
            self.acknowledge(status)
            durable = status["log"]["durable"]
            if durable != state["durable"]:
                state.update(durable=durable, since=time.monotonic())
            return (status["state"] == "healthy" and all(b["subscribed"] for b in status["brokers"])
                    and all(p["position"] == durable - 1 for p in status["projections"])
                    and time.monotonic() - state["since"] > NATS.ACK_WAIT + 3)
        processes.wait_for("healthy, subscribed and folded", quiet, 180, every=0.5)

    def acknowledge(self, status):
        """As an operator would, every 20 s at most: some alarms stay until then, and would hide what comes after."""
        reasons = [text for text in (status or {}).get("reasons", []) if "acknowledge" in text]
        if not reasons or time.monotonic() < self.acknowledge_at:
            return
        self.acknowledge_at = time.monotonic() + 20
        for text in reasons:
            self.log(f"acknowledged: {text[:160]}")
        for name in self.brokers:
            if any(name in text for text in reasons):
                self.refold.verb("broker", "acknowledge", name, "--reason", "known to the soak", "--http",
                                 self.refold.http)

    def judge(self, watcher):
        events = self.refold.events(f"{self.work}/events.ndjson")
        recorded = check.Recorded(events, self.history)
        for name, fleet in self.fleets.items():
            is_mosquitto = name == "mosquitto"
            account = check.Account(fleet.ledger, recorded.counts[name], recorded.stale if is_mosquitto else {},
                                    recorded.doubtful if is_mosquitto else {})
            self.log(account.line(name))
            if account.lost:
                self.violate(f"{name}: {sum(account.lost.values())} lost")
                for key, count in sorted(account.lost.items())[:20]:
                    at = fleet.ledger.acknowledged_at.get(key)
                    when = f", acknowledged at {at - self.began:.1f} s" if at else ""
                    self.log(f"    {key[0]} {key[1].decode()}: {count} of {fleet.ledger.acknowledged[key]}{when}")
            if account.invented:
                self.violate(f"{name}: {account.invented} that were never sent")
            if is_mosquitto and account.twice:
                self.violate(f"{name}: {sum(account.twice.values())} recorded twice")
        for (name, verdict), count in recorded.rejected.items():
            self.violate(f"{name}: {count} with verdict {verdict}")
        for name, count in watcher.wrong.items():
            self.violate(f"healthy for {count} s while {name} was in force")
        verified = self.refold.verb("log", "verify")
        if verified.returncode:
            self.violate(f"log verify: {verified.stdout} {verified.stderr}")
        agrees, text = check.naive_fold(events, self.postgresql.url)
        self.log(text)
        if not agrees:
            self.violate("the naive fold differs from the tables")
        self.log(f"status: {watcher.polls} polls, {dict(watcher.states)}")
        self.log("faults: " + ", ".join(f"{name} {n}" for name, n in sorted(self.dealt.items())))


def main():
    if not os.access(REFOLD, os.X_OK):
        raise SystemExit(f"{REFOLD} is missing (make build, or SOAK_REFOLD)")
    print(f"ledger soak: SEED={SEED} SOAK_MINUTES={MINUTES:g} {RATE:g} messages/s", flush=True)
    # SIGTERM goes through the cleanup below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    site, code = None, 1
    try:
        site = Site()
        site.run()
        code = 1 if site.violations else 0
        for text in site.violations:
            print(f"VIOLATION {text}")
    except BaseException:
        traceback.print_exc()
    finally:
        keep = bool(code and site and not os.environ.get("SOAK_DISCARD"))
        processes.end(site.work if site else "", keep)
        print(f"ledger soak: SEED={SEED} {'FAILED' if code else 'passed'}"
              + (f"; kept: {site.work}" if keep else ""), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
