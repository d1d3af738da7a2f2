#!/usr/bin/env python3
"""How brokers redeliver at QoS 1, measured: packet ids, DUP, order, and what a takeover sends. Figures: bench/NOTES.md.

    bench/soak/redelivery.py [mosquitto|rabbitmq|nats …]
"""
import sys, time

import mqtt, processes
from brokers import NATS, Mosquitto, RabbitMQ

FILTER, TOPIC = "tenant/+/device/+/#", "tenant/t/device/d/heartbeat"


def show(what, packets):
    print(f"  {what}: " + (" | ".join(map(str, packets)) or "nothing"), flush=True)


class Subscriber:
    def __init__(self, port, v5, clean=False, name="refold-probe"):
        self.link = mqtt.Link(port, v5)
        self.v5, self.name, self.clean = v5, name, clean

    def connect(self, subscribe=True, also=b""):
        """CONNECT and SUBSCRIBE in one write; what came within a second, in order."""
        data = mqtt.connect(self.name, self.v5, self.clean)
        if subscribe:
            data += mqtt.subscribe(FILTER, 9999, self.v5)
        self.link.send(data + also)
        return self.collect()

    def collect(self, seconds=1.0):
        found, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            found += self.link.wait(0.1)
        return found

    def acknowledge(self, packets, only=None):
        for p in packets:
            if p.kind == mqtt.PUBLISH and (only is None or p.payload.decode() in only):
                self.link.send(mqtt.puback(p.id))


def publish(port, payloads):
    link = mqtt.Link(port)
    link.send(mqtt.connect("publisher", clean=True))
    for number, payload in enumerate(payloads, 1):
        link.send(mqtt.publish(TOPIC, payload.encode(), number))
    found, until = [], time.monotonic() + 5
    while sum(p.kind == mqtt.PUBACK for p in found) < len(payloads) and time.monotonic() < until:
        found += link.wait(0.1)
    assert sum(p.kind == mqtt.PUBACK for p in found) == len(payloads), found
    link.send(mqtt.GOODBYE)
    link.close()


def probe(broker, v5):
    print(f"{broker.name} {'5.0' if v5 else '3.1.1'}")
    name = f"refold-probe-{v5}"
    one = Subscriber(broker.port, v5, name=name)
    show("first connect", one.connect())
    publish(broker.port, ["a", "b", "c", "d", "e", "f"])
    got = one.collect()
    show("six published", got)
    one.acknowledge(got, {"a", "b", "d"})
    time.sleep(0.3)
    publish(broker.port, ["g"])
    show("a, b, d acknowledged, g published", one.collect())
    one.link.close()
    time.sleep(0.5)
    publish(broker.port, ["h", "i"])
    two = Subscriber(broker.port, v5, name=name)
    got = two.connect()
    show("cut; h, i published; CONNECT+SUBSCRIBE (c, e, f, g unacknowledged)", got)
    publish(broker.port, ["j"])
    got += (more := two.collect())
    show("j published", more)
    two.link.close()
    time.sleep(0.5)
    three = Subscriber(broker.port, v5, name=name)
    got = three.connect(subscribe=False)
    show("cut; CONNECT without SUBSCRIBE", got)
    three.acknowledge(got)
    time.sleep(0.3)
    publish(broker.port, ["k", "l"])
    got = three.collect()
    show("all acknowledged; k, l published", got)
    three.acknowledge(got, {"k"})
    time.sleep(0.3)
    publish(broker.port, ["m", "n"])
    got += three.collect()
    show("k acknowledged; m, n published", got[-2:])
    time.sleep(2.5)  # Persistence settles.
    broker.kill()
    show("broker kill -9", three.collect(0.3))
    broker.start()
    four = Subscriber(broker.port, v5, name=name)
    got = four.connect()
    show("broker started; CONNECT+SUBSCRIBE (l, m, n unacknowledged)", got)
    publish(broker.port, ["o"])
    got += (more := four.collect())
    show("o published", more)
    four.acknowledge(got)
    time.sleep(0.3)
    publish(broker.port, ["p"])
    got = four.collect()
    show("all acknowledged; p published", got)
    four.acknowledge(got)
    time.sleep(0.3)
    publish(broker.port, ["q"])
    four.collect()
    five = Subscriber(broker.port, v5, name=name)
    got = five.connect()
    show("q unacknowledged; takeover: the new client gets", got)
    show("takeover: the old client gets", four.collect())
    print(f"  takeover: the old connection is {'closed' if four.link.closed else 'open'}")
    five.acknowledge(got)
    publish(broker.port, ["r"])
    show("r published", got := five.collect())
    late = five.collect(35)
    show("35 s without an acknowledgement, connected", late)
    five.acknowledge(got)
    time.sleep(0.3)
    five.link.send(mqtt.GOODBYE)


if __name__ == "__main__":
    kinds = {"mosquitto": Mosquitto, "rabbitmq": RabbitMQ, "nats": NATS}
    work = processes.make_work_folder()
    try:
        for kind in sys.argv[1:] or kinds:
            broker = kinds[kind](work)
            broker.start()
            for v5 in ([False, True] if broker.v5 else [False]):
                probe(broker, v5)
    finally:
        processes.end(work)
