"""Devices that publish at QoS 1, and the ledger of what the broker acknowledged to them.

A message is (topic, payload). Payloads are identical (`{}`), repeating (a cycle of seven) or unique. Messages with the
same topic and payload cannot be told apart, so the ledger counts: for each of them acknowledged ≤ recorded ≤ sent.
"""
import collections, random, threading, time

import mqtt

IN_FLIGHT_MAX = 16
# How long acknowledgements stay available for the excuses of a broker's kill -9.
RECENT_SECONDS = 30


class Ledger:
    def __init__(self):
        self.sent, self.acknowledged = collections.Counter(), collections.Counter()
        # Acknowledged just before a kill -9, or during an orderly stop, of a broker that may lose them: see check.py.
        self.excused = collections.Counter()
        # Of unique messages: when they were acknowledged, to find the fault that lost them.
        self.acknowledged_at = {}


class Device:
    def __init__(self, tenant, number):
        self.root = f"tenant/{tenant}/device/d{number}"
        self.sequence = 0

    def message(self, dice):
        kind = dice.random()
        if kind < 0.4:
            return f"{self.root}/heartbeat", b"{}", False
        if kind < 0.7:
            return f"{self.root}/telemetry", b'{"metrics":{"t":%d}}' % dice.randrange(7), False
        self.sequence += 1
        return f"{self.root}/telemetry", b'{"seq":%d,"metrics":{"t":1}}' % self.sequence, True


class Publisher:
    """One connection, used by several devices in turn. Unacknowledged messages are sent again after a reconnect."""

    def __init__(self, broker, name, ledger, devices, v5):
        self.broker, self.name, self.ledger, self.devices, self.v5 = broker, name, ledger, devices, v5
        self.link = None
        self.is_connected = False
        self.next_id, self.turn, self.retry_at, self.since = 0, 0, 0.0, 0.0
        # The broker, about to stop, acknowledges on this connection what it may not keep.
        self.is_excused = False
        self.in_flight = collections.OrderedDict()

    def connect(self, now):
        try:
            self.link = mqtt.Link(self.broker.port, self.v5)
        except OSError:
            self.retry_at = now + 0.2
            return
        self.is_connected, self.since = False, now
        self.link.send(mqtt.connect(self.name, self.v5, clean=True, keepalive=0))

    def disconnect(self, now):
        self.link.close()
        self.link, self.is_connected, self.retry_at = None, False, now + 0.2
        self.is_excused = False

    def transmit(self, number, message, again):
        topic, payload, _ = message
        # Counted before it is written: a message may arrive although this connection then fails.
        self.ledger.sent[topic, payload] += 1
        self.link.send(mqtt.publish(topic, payload, number, self.v5, again))

    def publish(self, dice):
        self.next_id = self.next_id % 65_535 + 1
        self.turn = (self.turn + 1) % len(self.devices)
        message = self.devices[self.turn].message(dice)
        self.in_flight[self.next_id] = message
        self.transmit(self.next_id, message, False)

    def step(self, now, recent):
        """Reads what has come; returns whether it can publish."""
        if self.link is None:
            if now < self.retry_at:
                return False
            self.connect(now)
            return False
        self.link.flush()
        for packet in self.link.receive():
            if packet.kind == mqtt.CONNACK:
                if packet.refused:
                    self.link.closed = True
                    break
                self.is_connected = True
                for number, message in self.in_flight.items():
                    self.transmit(number, message, True)
            elif packet.kind == mqtt.PUBACK and not packet.refused:
                message = self.in_flight.pop(packet.id, None)
                if message:
                    key = message[:2]
                    self.ledger.acknowledged[key] += 1
                    if self.is_excused:
                        self.ledger.excused[key] += 1
                    recent.append((now, key))
                    if message[2]:
                        self.ledger.acknowledged_at[key] = now
        if self.link.closed or (not self.is_connected and now - self.since > 5 and not self.broker_is_frozen):
            self.disconnect(now)
            return False
        return self.is_connected and len(self.in_flight) < IN_FLIGHT_MAX

    @property
    def broker_is_frozen(self):
        return getattr(self.broker, "is_frozen", False)


class Fleet:
    """The devices of one broker, on a thread."""

    def __init__(self, broker, rate, seed, devices=12, connections=4):
        self.broker, self.rate, self.ledger = broker, rate, Ledger()
        self.dice = random.Random(f"{seed} {broker.name}")
        all_devices = [Device(broker.name, number) for number in range(devices)]
        self.publishers = [
            Publisher(broker, f"fleet-{broker.name}-{number}", self.ledger, all_devices[number::connections],
                      broker.v5 and number % 2 == 0) for number in range(connections)]
        self.recent = collections.deque()
        self.lock = threading.Lock()
        self.is_calm = self.is_ending = False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def run(self):
        turn, due = 0, time.monotonic()
        while not self.is_ending:
            now = time.monotonic()
            with self.lock:
                able = [p for p in self.publishers if p.step(now, self.recent)]
                while self.recent and self.recent[0][0] < now - RECENT_SECONDS:
                    self.recent.popleft()
                # What could not be published is not made up for.
                due = max(due, now - 0.1)
                while able and not self.is_calm and due <= now:
                    able[turn % len(able)].publish(self.dice)
                    able = [p for p in able if len(p.in_flight) < IN_FLIGHT_MAX]
                    turn += 1
                    due += 1 / self.rate
            time.sleep(0.004)

    def calm(self, seconds=20):
        """Publishes nothing new; waits until nothing is in flight."""
        self.is_calm = True
        until = time.monotonic() + seconds
        while any(p.in_flight for p in self.publishers) and time.monotonic() < until:
            time.sleep(0.01)
        return not any(p.in_flight for p in self.publishers)

    def resume(self):
        self.is_calm = False

    def excuse(self, seconds):
        """What was acknowledged in the last `seconds` may be lost by the broker, which is about to be killed."""
        with self.lock:
            now = time.monotonic()
            self.ledger.excused.update(key for at, key in self.recent if at > now - seconds)

    def excuse_until_disconnected(self):
        """What is acknowledged from now on, over the present connections, may be lost: the broker is about to stop."""
        with self.lock:
            for publisher in self.publishers:
                publisher.is_excused = publisher.link is not None

    def end(self):
        self.is_ending = True
        self.thread.join()
