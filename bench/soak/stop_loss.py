"""What a broker acknowledges to publishers and never delivers when it is stopped, without refold in between.

    python3 bench/soak/stop_loss.py BROKER [SIGNAL [ROUNDS [RATE]]]     BROKER: mosquitto, rabbitmq or nats; SIGNAL: TERM

A plain subscriber with a kept session acknowledges everything at once. The results stand in bench/NOTES.md.
"""
import os, signal, sys, tempfile, threading, time

import brokers, fleet, mqtt, processes


class Subscriber(threading.Thread):
    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.delivered, self.is_ending = broker, set(), False

    def run(self):
        link = None
        while not self.is_ending:
            time.sleep(0.002)
            if link is None:
                try:
                    link = mqtt.Link(self.broker.port)
                except OSError:
                    continue
                link.send(mqtt.connect("subscriber"))
                link.send(mqtt.subscribe("tenant/#", 1))
            for packet in link.receive():
                if packet.kind == mqtt.PUBLISH:
                    self.delivered.add((packet.topic, packet.payload))
                    link.send(mqtt.puback(packet.id))
            link.flush()
            if link.closed:
                link.close()
                link = None


class UniqueDevice(fleet.Device):
    def message(self, dice):
        self.sequence += 1
        return f"{self.root}/telemetry", b'{"seq":%d}' % self.sequence, True


def main(kind, number="TERM", rounds="20", rate="150"):
    kinds = {"mosquitto": brokers.Mosquitto, "rabbitmq": brokers.RabbitMQ, "nats": brokers.NATS}
    work = tempfile.mkdtemp(prefix="stop-loss-", dir="/var/tmp")
    os.chmod(work, 0o755)
    try:
        broker = kinds[kind](work).start()
        subscriber = Subscriber(broker)
        subscriber.start()
        fleet.Device = UniqueDevice
        devices = fleet.Fleet(broker, float(rate), 1)
        time.sleep(1)
        devices.start()
        stops = []
        for turn in range(int(rounds)):
            time.sleep(1 + turn % 7 / 10)
            began = time.monotonic()
            os.kill(broker.process.popen.pid, getattr(signal, "SIG" + number))
            broker.process.popen.wait()
            stops.append((began, time.monotonic()))
            broker.start()
        devices.calm()
        time.sleep(brokers.NATS.ACK_WAIT * 2)
        devices.end()
        subscriber.is_ending = True
        lost = [at for key, at in devices.ledger.acknowledged_at.items() if key not in subscriber.delivered]
        print(f"{kind}, SIG{number}, {len(stops)} stops: {len(devices.ledger.acknowledged_at)} acknowledged, "
              f"{len(lost)} never delivered")
        for at in sorted(lost):
            began, ended = min(stops, key=lambda stop: abs(at - stop[0]))
            print(f"  acknowledged {1000 * (at - began):+.0f} ms from the signal; the process ended after "
                  f"{1000 * (ended - began):.0f} ms")
    finally:
        processes.end(work, False)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
