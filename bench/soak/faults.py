"""The faults. Each is a function of the site and the dice that starts it and returns a Fault, or None when it is over
already; its name is that of the function. `shuffle` deals all of them before any comes again.
"""
import os, socket, time

import mqtt
from daemon import DESCRIPTORS
from processes import wait_for

# A save of Mosquitto's database may be this old when it is killed: autosave_interval 1 is checked once a second.
MOSQUITTO_STALE_SECONDS = 4
KEEPALIVE = 5


class Fault:
    """In force until `end` is called. `visible_after`: seconds until the daemon must not report `healthy`.
    `settled`: from `end` until this is true its targets get no other fault."""

    def __init__(self, name, targets, seconds, end, visible_after=None, settled=lambda: True):
        self.name, self.targets, self.end, self.visible_after = name, targets, end, visible_after
        self.settled = settled
        self.began = time.monotonic()
        self.until = self.began + seconds


# MARK: The daemon

def kill_refold(site, dice):
    site.refold.kill()
    return Fault("kill_refold", {"refold"}, dice.choice([0, 0, 1, 5, 12]), site.start_refold)


def restart_refold(site, dice):
    if not site.refold.stop():
        site.violate("refold did not end within 30 s of SIGTERM")
    return Fault("restart_refold", {"refold"}, dice.choice([0, 3]), site.start_refold)


def freeze_refold(site, dice):
    site.refold.process.freeze()
    if dice.random() < 0.5:
        return Fault("freeze_refold", {"refold"}, dice.uniform(1, 15), site.refold.process.thaw)
    def end():
        site.refold.kill()
        site.start_refold()
    return Fault("freeze_and_kill_refold", {"refold"}, dice.uniform(1, 8), end)


def rename_client(site, dice):
    """A container that was recreated has another host name, and so another default client id."""
    site.refold.kill()
    site.refold.node = f"node-{dice.randrange(1 << 32):08x}" if site.refold.node is None else None
    def end():
        site.start_refold()
        # The daemon may be killed again at once; Mosquitto not before it has saved the new session.
        fault.targets = {"mosquitto"}
        fault.ended_at = time.monotonic()
    fault = Fault("rename_client", {"refold", "mosquitto"}, dice.choice([0, 3]), end,
                  settled=lambda: time.monotonic() - fault.ended_at > 20)
    return fault


def second_instance(site, dice):
    """Another log, with the same settings otherwise, on the same brokers."""
    site.second.node = site.refold.node
    site.second.start()
    def end():
        code = site.second.died()
        if code is not None and code < 0:
            site.violate(f"the second instance ended by itself with {code}: {site.second.process.tail(600)}")
        site.second.kill()
        site.forget_sessions_of_second()
    return Fault("second_instance", {"refold"}, dice.uniform(4, 10), end)


# MARK: Brokers

def _down(broker, name, site, seconds):
    def end():
        if broker.name == "mosquitto":
            site.history.end_stale()
        broker.spawn()
    return Fault(name, {broker.name}, seconds, end, visible_after=10, settled=broker.is_ready)


def _kill_broker(broker, site, dice):
    name = f"kill_{broker.name}"
    if broker.name == "mosquitto":
        site.history.mark_stale(MOSQUITTO_STALE_SECONDS)
        if dice.random() < 0.5:
            # All that it has acknowledged is saved: nothing is excused.
            site.fleets[broker.name].calm()
            broker.save()
            name = "kill_saved_mosquitto"
        else:
            site.fleets[broker.name].excuse(MOSQUITTO_STALE_SECONDS)
            # PUBACKs that the fleet has not read yet, too.
            site.fleets[broker.name].excuse_until_disconnected()
    broker.kill()
    site.fleets[broker.name].resume()
    return _down(broker, name, site, dice.choice([0, 2, 15]))


def kill_mosquitto(site, dice):
    return _kill_broker(site.brokers["mosquitto"], site, dice)


def kill_rabbitmq(site, dice):
    return _kill_broker(site.brokers["rabbitmq"], site, dice)


def kill_nats(site, dice):
    return _kill_broker(site.brokers["nats"], site, dice)


def restart_broker(site, dice):
    broker = site.brokers[dice.choice(sorted(site.brokers))]
    if site.is_busy({broker.name}):
        return None
    if broker.loses_as_it_stops:
        site.fleets[broker.name].excuse_until_disconnected()
    broker.stop()
    return _down(broker, f"restart_{broker.name}", site, dice.choice([0, 3]))


def freeze_broker(site, dice):
    broker = site.brokers[dice.choice(sorted(site.brokers))]
    if site.is_busy({broker.name}):
        return None
    broker.is_frozen = True
    broker.process.freeze()
    def end():
        broker.is_frozen = False
        broker.process.thaw()
    # A peer that is silent is found by the keepalive (MQTT 5.0, 3.1.2.10), and by nothing else.
    return Fault(f"freeze_{broker.name}", {broker.name}, dice.choice([2, 8, 30]), end, visible_after=10 + 2 * KEEPALIVE)


def ids_begin_again(site, dice):
    """Mosquitto goes back to an older save and uses packet ids again, while refold holds heartbeats unacknowledged."""
    broker, fleet = site.brokers["mosquitto"], site.fleets["mosquitto"]
    fleet.calm()
    recorded = site.wait_until_recorded(seconds=5)
    if not recorded:
        fleet.excuse(MOSQUITTO_STALE_SECONDS)
    site.history.mark_stale(MOSQUITTO_STALE_SECONDS)
    broker.kill()
    site.history.end_stale()
    broker.start()
    # The session is resumed, then refold is stopped between receiving and acknowledging.
    time.sleep(dice.choice([0.0, 0.5, 2.0]))
    site.refold.process.freeze()
    fleet.resume()
    def end():
        site.refold.kill()
        site.start_refold()
    name = "ids_begin_again" if recorded else "ids_begin_again_unsettled"
    return Fault(name, {"refold", "mosquitto"}, dice.uniform(1, 4), end)


# MARK: PostgreSQL

def kill_postgresql(site, dice):
    site.postgresql.kill()
    return Fault("kill_postgresql", {"postgresql"}, dice.choice([0, 3, 15]), site.postgresql.spawn,
                 visible_after=10, settled=site.postgresql.is_ready)


def freeze_postgresql(site, dice):
    site.postgresql.process.freeze()
    return Fault("freeze_postgresql", {"postgresql"}, dice.choice([2, 35]), site.postgresql.process.thaw,
                 visible_after=25)


# MARK: The machine

def step_clock(site, dice):
    step = dice.choice([3 * 86_400, 7_300, -3_600, 2, -2, 600, -86_400])
    site.clock.set(step)
    return Fault(f"step_clock_{step}_s", {"clock"}, dice.choice([1, 3, 10]), lambda: site.clock.set(0))


def fill_disk(site, dice):
    if not site.has_small_disk:
        return None
    path = os.path.join(site.disk, "filler")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for piece in (1 << 20, 4096, 512):
            data = b"\1" * piece
            try:
                while os.write(fd, data) > 0:
                    pass
            except OSError:
                pass
    finally:
        os.close(fd)
    return Fault("fill_disk", {"disk"}, dice.choice([2, 15]), lambda: os.unlink(path), visible_after=10)


def block_stderr(site, dice):
    stderr = site.refold.stderr
    if stderr.is_closed:
        return None
    stderr.block()
    return Fault("block_stderr", {"stderr"}, dice.choice([5, 20]), stderr.unblock)


def close_stderr(site, dice):
    """The reader of stderr goes away; it stays away until the next start."""
    site.refold.stderr.close()
    return Fault("close_stderr", {"stderr"}, 1, lambda: None)


def _idle_http(name, site, count, seconds):
    host, port = site.refold.http.split(":")
    held = []
    for _ in range(count):
        try:
            held.append(socket.create_connection((host, int(port)), timeout=0.2))
        except OSError:
            break
    def end():
        for one in held:
            one.close()
    return Fault(name, {"http"}, seconds, end)


def exhaust_descriptors(site, dice):
    """Opens twice as many API connections as the daemon has descriptors."""
    return _idle_http("exhaust_descriptors", site, 2 * DESCRIPTORS, dice.choice([3, 15]))


def idle_http_clients(site, dice):
    """Opens API connections that send nothing, half the descriptor limit."""
    return _idle_http("idle_http_clients", site, DESCRIPTORS // 2, 5)


# What each needs to itself: it is not started while another fault holds one of these.
NEEDS = {
    kill_refold: {"refold"}, restart_refold: {"refold", "stderr"}, freeze_refold: {"refold"},
    rename_client: {"refold", "mosquitto"},
    second_instance: {"refold", "mosquitto", "rabbitmq", "nats", "postgresql", "clock"},
    kill_mosquitto: {"mosquitto"}, kill_rabbitmq: {"rabbitmq"}, kill_nats: {"nats"}, restart_broker: set(),
    freeze_broker: set(), ids_begin_again: {"refold", "mosquitto"}, kill_postgresql: {"postgresql"},
    freeze_postgresql: {"postgresql"}, step_clock: {"clock"}, fill_disk: {"disk"}, block_stderr: {"stderr", "refold"},
    close_stderr: {"stderr", "refold"}, exhaust_descriptors: {"http", "refold"},
    idle_http_clients: {"http", "refold"},
}
ALL = list(NEEDS)


def choose(choice):
    """Fault functions by name: those wanted, or all but `-name`. Ends the program if a name is unknown."""
    excluded = {name[1:] for name in choice if name.startswith("-")}
    wanted = {name for name in choice if not name.startswith("-")}
    unknown = (excluded | wanted) - {f.__name__ for f in ALL}
    chosen = [f for f in ALL if (not wanted or f.__name__ in wanted) and f.__name__ not in excluded]
    if unknown or not chosen:
        raise SystemExit("SOAK_FAULTS: " + (f"unknown: {', '.join(sorted(unknown))}" if unknown else "none is left") + "; there are: "
                         f"{', '.join(f.__name__ for f in ALL)}")
    return chosen


def shuffle(dice, chosen):
    """The faults without end; each once before any again."""
    while True:
        deck = list(chosen)
        dice.shuffle(deck)
        yield from deck
