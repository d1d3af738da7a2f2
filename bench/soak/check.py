"""What the soak promises: compares ledgers with the log, the log with the tables, and health with the faults."""
import base64, collections, json, subprocess, threading, time

from processes import ROOT


class Watcher(threading.Thread):
    """Queries the status each second: `healthy` is wrong while a visible fault has been in force for long enough."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.site, self.is_ending, self.polls, self.states = site, False, 0, collections.Counter()
        self.wrong, self.last = collections.Counter(), None

    def run(self):
        while not self.is_ending:
            began = time.monotonic()
            # Only faults that are in force before the query and after it.
            before = list(self.site.active)
            status = self.site.refold.status(timeout=2)
            if status:
                self.polls += 1
                self.states[status["state"]] += 1
                self.last = status
                after = list(self.site.active)
                for fault in before:
                    limit = fault.visible_after
                    if limit and fault in after and began - fault.began > limit and status["state"] == "healthy":
                        self.wrong[fault.name] += 1
                        self.site.log(f"healthy although {fault.name} began {began - fault.began:.1f} s ago")
            code = self.site.refold.died()
            if code is not None:
                self.site.refold.is_expected_to_run = False
                self.site.died(code)
            time.sleep(max(0, 1 - (time.monotonic() - began)))


class History(threading.Thread):
    """The log's durable position over time, from the file that the daemon maps for readers. Marks what Mosquitto may
    deliver once more without DUP: a kill -9 takes it back to a save, before acknowledgements that refold had sent."""

    def __init__(self, data):
        super().__init__(daemon=True)
        self.path, self.points, self.stale = f"{data}/log/durable", collections.deque(maxlen=400), []

    def run(self):
        while True:
            self.points.append((time.monotonic(), self.durable()))
            time.sleep(0.1)

    def durable(self):
        try:
            with open(self.path, "rb") as f:
                return int.from_bytes(f.read(32)[24:32], "little")
        except OSError:
            return self.points[-1][1] if self.points else 0

    def mark_stale(self, seconds):
        limit = time.monotonic() - seconds
        self.stale.append([next((d for at, d in list(self.points) if at >= limit), 0), None])

    def end_stale(self):
        """The broker starts again: what is recorded from now on comes from the restored session."""
        if self.stale and self.stale[-1][1] is None:
            self.stale[-1][1] = self.durable()

    def is_stale(self, position):
        return any(first <= position and (last is None or position < last) for first, last in self.stale)


class Attempts:
    """A broker's CONNECTs, by client id. A redelivery after an unanswered CONNECT is in doubt: the log cannot show what
    the broker sent on that connection (README, "What it promises"). Doubt begins with the answer to the next CONNECT."""

    def __init__(self):
        self.unanswered, self.doubtful = collections.Counter(), set()

    def note(self, schema, body):
        client = body.get("client_id")
        if schema == "broker.connecting/1" or schema == "broker.draining/1" and "session_present" not in body:
            if schema == "broker.connecting/1":
                self.doubtful.clear()
            self.unanswered[client] += 1
        elif schema in ("broker.connected/1", "broker.draining/1"):
            if body["session_present"] and (self.unanswered[client] > 1 or body.get("unseen_attempt")):
                self.doubtful.add(client)
            self.unanswered[client] = 0
        elif schema in ("broker.session_resumed/1", "broker.session_drained/1", "broker.disconnected/1"):
            self.unanswered[client] = 0
            self.doubtful.discard(client)


class Recorded:
    """How often each (topic, payload) is in the log, by broker, and how many were rejected. `stale`: how many of them
    a kill -9 of Mosquitto may have brought once more. `doubtful`: how many came again with DUP while a session
    was in doubt (`Attempts`)."""

    def __init__(self, path, history):
        self.counts = collections.defaultdict(collections.Counter)
        self.stale, self.doubtful, attempts = collections.Counter(), collections.Counter(), Attempts()
        self.rejected = collections.Counter()
        with open(path) as f:
            for line in f:
                event = json.loads(line)
                if event["kind"] == "message":
                    payload = base64.b64decode(event.get("payload_base64") or "")
                    if event["verdict"] == "ACCEPTED":
                        key, counts = (event["topic"], payload), self.counts[event["broker"]]
                        counts[key] += 1
                        if event["broker"] == "mosquitto" and history.is_stale(event["position"]):
                            self.stale[key] += 1
                        elif event["broker"] == "mosquitto" and counts[key] > 1 and event.get("duplicate") and attempts.doubtful:
                            self.doubtful[key] += 1
                    else:
                        self.rejected[event["broker"], event["verdict"]] += 1
                elif event["kind"] == "connection" and event["broker"] == "mosquitto":
                    attempts.note(event["topic"], json.loads(base64.b64decode(event["payload_base64"])))
                elif event["kind"] == "rejection":
                    body = json.loads(base64.b64decode(event["payload_base64"]))
                    self.rejected[event["broker"], event["verdict"]] += len(body["rejected"])


class Account:
    """One broker's ledger beside the log."""

    def __init__(self, ledger, recorded, stale, doubtful):
        self.sent, self.acknowledged = sum(ledger.sent.values()), sum(ledger.acknowledged.values())
        self.recorded = sum(recorded.values())
        self.lost, self.excused, self.twice, self.again, self.doubtful, self.invented = {}, 0, {}, 0, 0, 0
        for key, count in ledger.acknowledged.items():
            missing = count - recorded[key]
            if missing > 0:
                allowed = min(missing, ledger.excused[key])
                self.excused += allowed
                if missing > allowed:
                    self.lost[key] = missing - allowed
        for key, count in recorded.items():
            if key not in ledger.sent:
                self.invented += count
            elif count > ledger.sent[key]:
                surplus = count - ledger.sent[key]
                allowed = min(surplus, stale.get(key, 0))
                self.again += allowed
                in_doubt = min(surplus - allowed, doubtful.get(key, 0))
                self.doubtful += in_doubt
                if surplus > allowed + in_doubt:
                    self.twice[key] = surplus - allowed - in_doubt

    def line(self, name):
        return (f"{name:10} acknowledged {self.acknowledged:8,}  sent {self.sent:8,}  recorded {self.recorded:8,}  "
                f"lost {sum(self.lost.values())}  lost by the broker itself (excused) {self.excused}  "
                f"recorded twice {sum(self.twice.values())}  sent again without DUP after kill -9 {self.again}  "
                f"redelivered after a CONNECT without an answer {self.doubtful}  "
                f"invented {self.invented}")


def naive_fold(events, database_url):
    done = subprocess.run(["python3", f"{ROOT}/Tests/naive_fold/naive_fold.py", "--events", events, "--database",
                           database_url], capture_output=True, text=True)
    return done.returncode == 0, (done.stdout + done.stderr).strip()
