#!/usr/bin/env python3
"""make bench: Refold beside its peers and its limits, in one run on one machine. Writes bench/RESULTS.md.

    bench/run.py                 everything (about 15 minutes)
    bench/run.py ingest decode   some of it: ingest gate rows append decode replay latency memory campaign idle crl
                                 certificates
    MEMORY_SECONDS=1800 bench/run.py memory     the long form of the memory figure

Rates on a shared machine drift, so every ratio is of runs that alternate, and medians are quoted.
Exit code: 0 if every numeric demand is met, 1 if one is missed (each is named), 2 if the tree has uncommitted changes.
"""
import datetime, json, os, platform, re, shutil, statistics, subprocess, sys, time

from demands import missed
from world import REFOLD, ROOT, Broker, Database, Refold, end, free_port, program, start, stop, wait_for, work

BENCH = os.path.join(ROOT, "bench")
REFOLD_SIM = os.path.join(ROOT, ".build/release/refold-sim")
REFOLD_BENCH = os.path.join(ROOT, ".build/release/refold-bench")
VENV_PYTHON = os.path.join(BENCH, ".venv/bin/python")

DEVICES = 10_000
results = []          # (what, ours, other, ratio, demand)


def flood(port, count, devices=DEVICES, rate=0):
    args = [f"{BENCH}/build/flood", "--port", str(port), "--count", str(count), "--devices", str(devices)]
    return args + (["--rate", str(rate)] if rate else [])


def record(what, ours, other, unit, demand, worst=False):
    """Ratios pair by pair; the median is quoted."""
    ratio = statistics.median(a / b for a, b in zip(ours, other)) if other else None
    line = (what, f"{statistics.median(ours):,.0f} {unit}", f"{statistics.median(other):,.0f} {unit}" if other else "–",
            f"{ratio:.2f}" if ratio else "–", demand)
    results.append(line)
    print(" | ".join(line), flush=True)


# (a) publish → durable, beside a C subscriber that stores nothing
def bare_subscriber(count, linger):
    broker = Broker()
    subscriber = subprocess.Popen([f"{BENCH}/build/subscriber", "--port", str(broker.port), "--count", str(count),
                                   "--linger", str(linger)], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    begin = time.time()
    publisher = subprocess.Popen(flood(broker.port, count), stdout=subprocess.DEVNULL)
    subscriber.wait()
    rate = count / (time.time() - begin)
    publisher.wait()
    broker.stop()
    return rate


def bench_ingest(rounds=int(os.environ.get("ROUNDS", 3)), count=1_000_000):
    bare, paused, full = [], [], []
    for _ in range(rounds):
        # The limit is the better of two: one reads at once, the other waits 2 ms for more, as Refold does.
        bare.append(max(bare_subscriber(count, 0), bare_subscriber(count, 2000)))
        for figures, pause in ((paused, True), (full, False)):
            broker, database = Broker(), Database()
            refold = Refold(broker, database)
            wait_for("the tables", refold.caught_up)
            if pause:
                refold.pause_all()
            before, begin = refold.durable(), time.time()
            publisher = subprocess.Popen(flood(broker.port, count), stdout=subprocess.DEVNULL)
            wait_for("the log", lambda: refold.durable() >= before + count, 300, every=0.005)
            figures.append(count / (time.time() - begin))
            publisher.wait()
            refold.stop(), database.down(), broker.stop()
    record("ingest: publish → durable, projections paused / bare C subscriber", paused, bare, "msg/s", "≥ 0.90")
    record("ingest: publish → durable, projections running / bare C subscriber", full, bare, "msg/s", "reported")


# what the tree and its checkpoints cost
def ingest_only(count, *options):
    broker = Broker()
    subscriber = start([REFOLD_BENCH, "ingest", "--port", str(broker.port), "--count", str(count), *options],
                       stdout=subprocess.PIPE, text=True)
    assert subscriber.stdout.readline() == "ready\n"
    publisher = subprocess.Popen(flood(broker.port, count), stdout=subprocess.DEVNULL)
    answer = json.loads(subscriber.communicate()[0])
    publisher.wait()
    broker.stop()
    return answer


def bench_tree_cost(rounds=2 * int(os.environ.get("ROUNDS", 3)), count=2_000_000):
    pairs = [(ingest_only(count), ingest_only(count, "--no-tree")) for _ in range(rounds)]
    record("ingest with the tree and signed checkpoints / without", [a["events_per_second"] for a, _ in pairs],
           [b["events_per_second"] for _, b in pairs], "msg/s", "≥ 0.95")


# what the gate's check of certificates costs
def bench_gate(rounds=2 * int(os.environ.get("ROUNDS", 3)), count=2_000_000):
    pairs = [(ingest_only(count, "--certificates", str(DEVICES)), ingest_only(count)) for _ in range(rounds)]
    record(f"ingest with certificates.enforce, {DEVICES:,} devices / off", [a["events_per_second"] for a, _ in pairs],
           [b["events_per_second"] for _, b in pairs], "msg/s", "≥ 0.98")
    for devices in (DEVICES, 1_000_000):
        answer = json.loads(subprocess.check_output([REFOLD_BENCH, "gate", "--devices", str(devices)]))
        record(f"the gate alone with certificates.enforce, {devices:,} devices / off", [answer["certificates_ns"]],
               [answer["plain_ns"]], "ns/message", "reported")
    record("memory for the certificates of a device at the gate, 1,000,000 devices", [answer["bytes_a_device"]], None,
           "bytes", "reported")


# (b) message → committed row, beside the stack that users have
def bench_rows(rounds=int(os.environ.get("ROUNDS", 3)), count=1_000_000):
    ours, theirs = [], []
    for _ in range(rounds):
        broker, database = Broker(), Database()
        refold = Refold(broker, database)
        wait_for("the tables", refold.caught_up)
        begin = time.time()
        publisher = subprocess.Popen(flood(broker.port, count), stdout=subprocess.DEVNULL)
        wait_for("the rows", lambda: database.sql("select sum(message_count) from refold.device_status") == str(count), 300, every=0.1)
        ours.append(count / (time.time() - begin))
        publisher.wait()
        refold.stop(), database.down(), broker.stop()
        broker, database = Broker(), Database()
        peer = subprocess.Popen(
            [VENV_PYTHON, f"{BENCH}/peers/paho_asyncpg.py", "--port", str(broker.port), "--database-url", database.url,
             "--count", "20000", "--devices", str(DEVICES)], stdout=subprocess.PIPE, text=True)
        wait_for("the peer's table", lambda: database.sql("select count(*) from device_status") is not None)
        time.sleep(1)
        publisher = subprocess.Popen(flood(broker.port, 20_000), stdout=subprocess.DEVNULL)
        theirs.append(json.loads(peer.communicate()[0].strip().splitlines()[-1])["messages_per_second"])
        publisher.wait()
        database.down(), broker.stop()
    record("message → committed row, 10 k devices / paho-mqtt + asyncpg", ours, theirs, "msg/s", "≥ 15")


# (c) the log's append beside UmaDB
def bench_append(rounds=int(os.environ.get("ROUNDS", 3))):
    ours, theirs, bytes_per_event, their_bytes = [], [], 0, 0
    for _ in range(rounds):
        answer = program([REFOLD_BENCH, "append", "--batch", "1000", "--json"])
        ours.append(answer["events_per_second"])
        bytes_per_event = answer["bytes_per_event"]
        answer = program([VENV_PYTHON, f"{BENCH}/peers/umadb_bench.py", "--batch", "1000"])
        theirs.append(answer["events_per_second"])
        their_bytes = answer["bytes_per_event"]
    record("append, durable, batches of 1000 / UmaDB", ours, theirs, "events/s", "≥ 3")
    results.append(("bytes on disk an event (batches of 1000)", f"{bytes_per_event:.0f} B",
                    f"{their_bytes:,.0f} B (UmaDB)", "–", "reported"))


# (d) reading, beside C++ over the same bytes
def bench_decode(rounds=int(os.environ.get("ROUNDS", 5))):
    folder = os.path.join(work, "decode")
    program([REFOLD_BENCH, "append", "--batch", "1000", "--events", "3000000", "--data", folder, "--keep", "--json"])
    pairs = [("sequential decode: CRC + LZ4 + record walk / C++", "decode", "≥ 0.9"),
             ("decode + parse + device_status fold, per core / C++", "fold", "≥ 0.8")]
    for what, verb, demand in pairs:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(program([REFOLD_BENCH, verb, "--data", folder, "--json"])["events_per_second"])
            theirs.append(program([f"{BENCH}/build/{verb}", folder + "/log"])["events_per_second"])
        record(what, ours, theirs, "events/s", demand)
    records = os.path.join(work, "records")
    program([REFOLD_BENCH, "tree", "--data", folder, "--dump", records, "--json"])
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(program([REFOLD_BENCH, "tree", "--data", folder, "--json"]))
        theirs.append(program([f"{BENCH}/build/tree", records]))
        assert ours[-1]["root"] == theirs[-1]["root"], "the two trees differ"
    record("Merkle tree derived again, decoding included / the same hashes in C",
           [run["events_per_second"] for run in ours], [run["events_per_second"] for run in theirs], "events/s", "≥ 0.8")
    os.remove(records)


# a long log: verified, started on after a crash, asked for one device
def bench_history(rounds=int(os.environ.get("ROUNDS", 5))):
    folder = os.path.join(work, "history")
    program([REFOLD_BENCH, "history", "--data", folder, "--events", "10000000"])
    pairs = [(program([REFOLD_BENCH, "verify", "--data", folder, "--json"]), program([f"{BENCH}/build/verify", folder + "/log"]))
             for _ in range(rounds)]
    record("log verify: CRC, structure, continuity / C++", [a["events"] / a["seconds"] for a, _ in pairs],
           [b["events"] / b["seconds"] for _, b in pairs], "events/s", "≥ 0.8")
    answers = [program([REFOLD_BENCH, "lookup", "--data", folder]) for _ in range(rounds)]
    results.append(("one device's events out of 10 million of 10 k devices, warm cache, median device",
                    f"{statistics.median(a['median_ms'] for a in answers):.0f} ms", "–", "–", "≤ 100 ms"))
    print(results[-1], f"slowest {max(a['slowest_ms'] for a in answers):.0f} ms", flush=True)
    shutil.rmtree(folder)
    program([REFOLD_BENCH, "history", "--data", folder, "--events", "46000000", "--segment-bytes", str(1 << 20)])
    answers = [program([REFOLD_BENCH, "open", "--data", folder]) for _ in range(rounds)]
    results.append((f"start after a crash, {answers[0]['segments']:,} segments of 1 MiB: first durable append",
                    f"{statistics.median(a['first_append_ms'] for a in answers):,.0f} ms", "–", "–", "≤ 1,000 ms"))
    print(results[-1], flush=True)
    shutil.rmtree(folder)


def timed(args):
    """Seconds, peak resident bytes and output of a whole process."""
    begin = time.time()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"{args}: {output[-500:]}"
    return time.time() - begin, usage.ru_maxrss * 1024, output


# history told again: ten million mixed events of ten thousand devices
def bench_replay(rounds=int(os.environ.get("ROUNDS", 3))):
    folder, count = os.path.join(work, "replay"), 10_000_000
    program([REFOLD_BENCH, "history", "--mixed", "--data", folder, "--events", str(count)])
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(program([REFOLD_BENCH, "bulk", "--threads", "1", "--data", folder])["events_per_second"])
        theirs.append(program([f"{BENCH}/build/fold", folder + "/log", "all"])["events_per_second"])
    record("fold, all projections together, mixed events, one core / C++", ours, theirs, "events/s", "≥ 0.8")
    both = [program([REFOLD_BENCH, "bulk", "--threads", "2", "--data", folder])["events_per_second"] for _ in range(rounds)]
    record("the same on two cores", both, None, "events/s", "reported")
    rates, peaks = [], []
    for _ in range(rounds):
        database = Database()
        seconds, peak, _ = timed([REFOLD, "replay", "rebuild", "--all", "--data", folder, "--database-url", database.url, "--json"])
        rates.append(count / seconds), peaks.append(peak)
        if len(rates) == rounds:
            verify, _, _ = timed([REFOLD, "replay", "verify", "--data", folder, "--database-url", database.url, "--json"])
        database.down()
    record("replay rebuild --all into an empty PostgreSQL, whole process", rates, None, "events/s", "≥ 3,000,000")
    results.append(("its memory", f"{max(peaks) / 1e6:.0f} MB", "–", "–", "≤ 500 MB"))
    results.append(("replay verify: whole and in parts, all tables", f"{verify:.1f} s", "–", "–", "reported"))
    seconds, _, _ = timed([REFOLD, "snapshot", "create", "--data", folder, "--json"])
    results.append(("snapshot create, from nothing", f"{seconds:.1f} s", "–", "–", "reported"))

    def as_of(what, subject, position, demand):
        times = [timed([REFOLD, "replay", "as-of", "--data", folder, "--position", str(position), "--json", *subject])[0]
                 for _ in range(2 * rounds + 1)]
        results.append((what, f"{statistics.median(times[1:]) * 1000:.0f} ms", "–", "–", demand))
        print(results[-1], flush=True)

    device = json.loads(timed([REFOLD, "log", "cat", "--data", folder, "--from", "5000000", "--limit", "1", "--json"])[2])
    _, tenant, _, name = device["topic"].split("/")[:4]
    subject = ["device", tenant, name]
    as_of("one device as it was, 10 M events, no snapshot before it, whole process", subject, count // 2, "reported")
    as_of("one device as it was, from the nearest snapshot, whole process", subject, count + 5, "≤ 50 ms")
    as_of("a tenant's 2.5 k of 10 k devices as they were, at a snapshot, whole process", ["fleet", "--tenant", tenant],
          count + 5, "≤ 300 ms")
    shutil.rmtree(folder)


# everything on disk, after ten minutes at a rate at which a commit holds a handful of events
def bench_space():
    seconds = int(os.environ.get("SPACE_SECONDS", "600"))
    broker, database = Broker(), Database()
    refold = Refold(broker, database)
    wait_for("the tables", refold.caught_up)
    fleet = start([REFOLD, "simulate", "--broker-url", f"mqtt://127.0.0.1:{broker.port}", "--devices", "1000",
                   "--rate", "1000", "--count", str(1000 * seconds), "--seed", "1"], stdout=subprocess.DEVNULL)
    wait_for("the fleet", lambda: fleet.poll() is not None, 2 * seconds + 60, every=0.5)
    used = sum(os.lstat(os.path.join(path, name)).st_blocks * 512
               for path, _, names in os.walk(refold.data + "/log") for name in names)
    results.append((f"bytes on disk an event, everything included, {seconds} s live at 1,000 msg/s",
                    f"{used / refold.durable():.0f} B", "–", "–", "≤ 64"))
    print(results[-1], f"{refold.durable()} events", flush=True)
    refold.stop(), database.down(), broker.stop()


# latency: publish → visible row, at 1,000 msg/s
def bench_latency():
    broker, database = Broker(), Database()
    refold = Refold(broker, database)
    wait_for("the tables", refold.caught_up)
    background = subprocess.Popen(flood(broker.port, 1_000_000, 1000, rate=1000), stdout=subprocess.DEVNULL)
    time.sleep(2)
    answer = program([VENV_PYTHON, f"{BENCH}/latency.py", "--port", str(broker.port), "--database-url", database.url])
    stop(background)
    refold.stop(), database.down(), broker.stop()
    for name, demand in (("p50", "≤ 10 ms"), ("p99", "≤ 50 ms")):
        results.append((f"publish → visible row at 1,000 msg/s, {name}", f"{answer[name]:.1f} ms", "–", "–", demand))
        print(results[-1], flush=True)


# (e) memory, with PostgreSQL away for a third of the time
def bench_memory():
    seconds = int(os.environ.get("MEMORY_SECONDS", "180"))
    broker, database = Broker(), Database()
    refold = Refold(broker, database)
    wait_for("the tables", refold.caught_up)
    publisher = subprocess.Popen(flood(broker.port, 20_000 * seconds, rate=20_000), stdout=subprocess.DEVNULL)
    samples, begin, up = [], time.time(), True
    while publisher.poll() is None:
        elapsed = time.time() - begin
        if up and seconds / 3 < elapsed < 2 * seconds / 3:
            database.down()
            up = False
        elif not up and elapsed >= 2 * seconds / 3:
            database.up()
            up = True
        samples.append((elapsed, refold.rss_mb()))
        time.sleep(1)
    wait_for("catching up", refold.caught_up, 300)
    rate = 20_000 * seconds / (time.time() - begin)
    refold.stop(), database.down(), broker.stop()
    third = lambda k: max(m for t, m in samples if k * seconds / 3 <= t < (k + 1) * seconds / 3)
    results.append((f"resident memory, {seconds} s at 20 k msg/s, 10 k devices, PostgreSQL away for the middle third",
                    f"max {max(m for _, m in samples):.0f} MB", f"by thirds {third(0):.0f} / {third(1):.0f} / {third(2):.0f} MB",
                    "–", "≤ 150 MB, flat"))
    print(results[-1], f"{rate:.0f} msg/s to committed rows", flush=True)


# the simulated world
def bench_simulation():
    begin = time.time()
    run = subprocess.run([REFOLD_SIM, "--seeds", "1..100", "--steps", "2000", "--quiet"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    record("simulated steps, all invariants checked, one core", [200_000 / (time.time() - begin)], None, "steps/s", "–")


# CRLs of 100 k entries beside OpenSSL, cfssl and Python's cryptography, and certificates
def bench_crl(rounds=int(os.environ.get("ROUNDS", 5)), entries=100_000):
    ours = []
    peers = {"openssl ca -gencrl, whole process": [], "cfssl gencrl, whole process": [],
             "Python cryptography, from entries in memory": []}
    for number in range(rounds):
        folder = os.path.join(work, f"crl-{number}")
        ours.append(program([REFOLD_BENCH, "crl", "--entries", str(entries), "--folder", folder]))
        index = [line.split("\t") for line in open(f"{folder}/index.txt")]
        with open(f"{folder}/serials", "w") as file:
            file.writelines(f"{int(fields[3], 16)}\n" for fields in index)
        openssl, cfssl, cryptography = peers.values()
        openssl.append(timed(["sh", "-c", f"cd {folder} && echo 01 >number && exec openssl ca -config ca.cnf -gencrl -cert ca.pem "
                              "-keyfile ca.key -crldays 7 -out openssl.crl"])[0] * 1000)
        cfssl.append(timed(["sh", "-c", f"cd {folder} && exec cfssl gencrl serials ca.pem ca.key >cfssl.crl"])[0] * 1000)
        answer = program([VENV_PYTHON, f"{BENCH}/peers/crl_cryptography.py", folder])
        assert answer["entries"] == entries
        cryptography.append(answer["milliseconds"])
        assert os.path.getsize(f"{folder}/openssl.crl") > 40 * entries and os.path.getsize(f"{folder}/cfssl.crl") > 30 * entries
        shutil.rmtree(folder)
    cold = [1000 / run["cold_ms"] for run in ours]
    for (name, times), demand in zip(peers.items(), ("≥ 15", "≥ 15", "≥ 10")):
        record(f"CRL of {entries:,} entries, from entries in memory / {name}", cold, [1000 / t for t in times], "CRL/s", demand)
    median = lambda name: statistics.median(run[name] for run in ours)
    for what, value, demand in [
        ("from entries without order", median("cold_ms"), "≤ 30 ms"), ("one more revocation", median("incremental_ms"), "≤ 10 ms"),
        ("differences from the one before", median("differences_ms"), "≤ 50 ms"),
        ("check: parsed by OpenSSL, verified", median("check_ms"), "reported"),
    ]:
        results.append((f"CRL of {entries:,} entries: {what}", f"{value:.1f} ms", "–", "–", demand))
        print(" | ".join(results[-1]), flush=True)
    record("certificates issued, verified and parsed by OpenSSL, P-256, one core", [run["certificates_per_second"] for run in ours],
           None, "/s", "≥ 5,000")


# Certificates: a million in memory, issuing, and the time from a revocation to its proof at a real Mosquitto
def bench_certificates(rounds=int(os.environ.get("ROUNDS", 5)), count=1_000_000):
    state = os.path.join(work, "registry")
    written = program([REFOLD_BENCH, "registry", "--certificates", str(count), "--write", state])
    runs = [program([REFOLD_BENCH, "registry", "--certificates", str(count), "--read", state]) for _ in range(rounds)]
    median = lambda name: statistics.median(run[name] for run in runs)
    rows = [
        (f"{count:,} certificates in memory, read from a snapshot", f"{median('resident_mb'):.0f} MB", "≤ 250 MB"),
        (f"{count:,} certificates: reading them from a snapshot's {written['bytes'] / 1e6:.0f} MB",
         f"{median('decode_ms'):,.0f} ms", "≤ 3,000 ms"),
        (f"{count:,} certificates: making the snapshot's bytes", f"{written['encode_ms']:,.0f} ms", "reported"),
        (f"{count:,} certificates: the page of those that expire within a day", f"{median('list_ms'):.0f} ms", "≤ 100 ms"),
    ]
    for entries, demand in ((10_000, "≤ 250 ms"), (100_000, "≤ 1,000 ms")):
        run = revoked_at_mosquitto(entries)
        what = f"revocation → %s by Mosquitto, CRL of {entries:,} entries, p99"
        rows += [(what % "refused", f"{run['refused_ms_p99']:,.0f} ms", "reported"),
                 (what % "proved to be refused", f"{run['proved_ms_p99']:,.0f} ms", demand)]
    for what, ours, demand in rows:
        results.append((what, ours, "–", "–", demand))
        print(" | ".join(results[-1]), flush=True)
    ours, limits = [], []
    for _ in range(rounds):
        ours.append(program([REFOLD_BENCH, "issue", "--clients", "2"])["certificates_per_second"])
        limits.append(curve_limit())
    what = "certificates issued from requests, checked, signed and durable, 1,000 in a commit, two clients"
    record(what, ours, None, "/s", "≥ 5,000")
    record("the same / one verification and a signature, by openssl speed", ours, limits, "/s", "reported")


def curve_limit():
    """Certificates a second of all cores, if each cost nothing but a verification and a signature on P-256."""
    report = subprocess.run(["openssl", "speed", "-seconds", "2", "-multi", str(os.cpu_count()), "ecdsap256"],
                            check=True, capture_output=True, text=True).stdout
    signatures, verifications = map(float, report.split()[-2:])
    return 1 / (1 / verifications + 1 / signatures)


def revoked_at_mosquitto(entries):
    folder, port = os.path.join(work, f"revoke-{entries}"), free_port()
    os.mkdir(folder)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/server.key",
                    "-out", f"{folder}/server-ca.pem"], check=True, capture_output=True)
    with open(f"{folder}/mosquitto.conf", "w") as file:
        file.write(f"listener {port} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\ncafile {folder}/clients.pem\n"
                   f"certfile {folder}/server-ca.pem\nkeyfile {folder}/server.key\ncrlfile {folder}/fleet.crl\n"
                   f"pid_file {folder}/pid\nlog_dest file {folder}/log\n" + ("user root\n" if os.getuid() == 0 else ""))
    return program([REFOLD_BENCH, "revoke", "--entries", str(entries), "--folder", folder, "--port", str(port)])


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def moment(event):
    return datetime.datetime.fromisoformat(event["received_at"].replace("Z", "+00:00")).timestamp()


def bench_campaign(sizes=(10_000, 100_000)):
    """Campaigns of devices that never answer: what creating, deciding, waiting and looking cost by their size."""
    broker, database = Broker(), Database()
    refold = Refold(broker, database)
    firmware = refold.post("/tenants/acme/firmware", {"version": "2.0", "file_url": "https://firmware.example/2.bin"})["id"]
    idle = {}
    for size in sizes:
        begun = time.time()
        campaign = refold.post("/tenants/acme/campaigns", {
            "name": f"{size}", "firmware_version_id": firmware, "devices": [f"dev-{size}-{n}" for n in range(size)]})["id"]
        created = time.time() - begun
        wait_for("the tables", refold.caught_up)
        path = f"/api/v1/tenants/acme/campaigns/{campaign}"
        refold.post(path.removeprefix("/api/v1") + "/start")
        wait_for("the commands", lambda: metric(refold, "refold_commands_acknowledged_total") >= sum(sizes[:sizes.index(size) + 1]), 300)
        # The log says a moment later what the broker has acknowledged.
        time.sleep(1)
        events = [json.loads(line) for line in subprocess.run(
            [REFOLD, "log", "cat", "--data", refold.data, "--json"], capture_output=True, text=True).stdout.splitlines()]
        mine = [e for e in events if e["kind"] == "decision" and e["payload"].get("campaign_id") == campaign]
        started, decided, published = ([moment(e) for e in mine if e["topic"] == f"campaign.{name}/1"]
                                       for name in ("started", "dispatched", "published"))
        wait_for("the tables", refold.caught_up, 120)
        time.sleep(2)
        before, seconds = cpu_seconds(refold.process.pid), 5
        time.sleep(seconds)
        idle[size] = (cpu_seconds(refold.process.pid) - before) / seconds
        asked = []
        for question in ["", "/devices?limit=100", "/devices?status=DOWNLOADING&limit=100", "/timeline", "/progress", "/failures"] * 5:
            begun = time.time()
            refold.get(path + question)
            asked.append((time.time() - begun, question))
        slowest = max(asked)
        name = f"campaign of {size:,} devices"
        for what, value, demand in [
            (f"{name}: created and durable, over HTTP", f"{created:.2f} s", "≤ 5 s"),
            (f"{name}: decided", f"{size / max(decided[-1] - started[0], 0.001):,.0f} devices/s", "≥ 5,000"),
            (f"{name}: decided, published and acknowledged", f"{size / (published[-1] - started[0]):,.0f} devices/s", "reported"),
            (f"{name}: CPU while it waits for answers", f"{idle[size] * 100:.1f} % of a core", "independent of the size"),
            (f"{name}: slowest answer of the API ({slowest[1] or 'itself'})", f"{slowest[0] * 1000:.0f} ms", "≤ 100 ms"),
        ]:
            results.append((what, value, "–", "–", demand))
            print(" | ".join(results[-1]), flush=True)
    refold.stop()
    database.down()
    broker.stop()


def context_switches(pid):
    """Of all threads, voluntary and not."""
    count = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/status") as status:
                count += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        except FileNotFoundError:
            pass  # the thread has ended
    return count


def bench_idle(seconds=int(os.environ.get("IDLE_SECONDS", 60))):
    """A daemon with a broker, a database and an ended campaign, and nothing to do."""
    broker, database = Broker(), Database()
    refold = Refold(broker, database)
    firmware = refold.post("/tenants/acme/firmware", {"version": "2.0", "file_url": "https://firmware.example/2.bin"})["id"]
    campaign = refold.post("/tenants/acme/campaigns", {
        "name": "idle", "firmware_version_id": firmware, "devices": ["dev-1"]})["id"]
    for step in ("start", "abort"):
        refold.post(f"/tenants/acme/campaigns/{campaign}/{step}")
    wait_for("the tables", refold.caught_up)
    # The tree's last checkpoint, and the commands that the campaign leaves.
    time.sleep(10)
    pid = refold.process.pid
    switches, cpu = context_switches(pid), cpu_seconds(pid)
    time.sleep(seconds)
    switches, cpu = (context_switches(pid) - switches) / seconds, (cpu_seconds(pid) - cpu) / seconds
    refold.stop(), database.down(), broker.stop()
    for what, value, demand in [("context switches", f"{switches:.1f} /s", "≤ 20"), ("CPU", f"{cpu * 100:.2f} % of a core", "≤ 0.3")]:
        results.append((f"idle daemon with an ended campaign, {seconds} s: {what}", value, "–", "–", demand))
        print(" | ".join(results[-1]), flush=True)


def metric(refold, name):
    return sum(float(line.split()[-1]) for line in refold.get("/metrics").decode().splitlines() if line.startswith(name))


def machine():
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read()).group(1)) // 1024 // 1024
    version = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} × {model}, {memory} GiB, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}, commit {version}"


BENCHES = {"ingest": bench_ingest, "tree-cost": bench_tree_cost, "gate": bench_gate,
           "rows": bench_rows, "append": bench_append,
           "decode": bench_decode, "history": bench_history, "replay": bench_replay, "space": bench_space, "latency": bench_latency,
           "memory": bench_memory, "campaign": bench_campaign, "idle": bench_idle, "crl": bench_crl,
           "certificates": bench_certificates,
           "simulation": bench_simulation}


def main():
    chosen = sys.argv[1:] or list(BENCHES)
    writes = len(chosen) == len(BENCHES)
    if writes and subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True, text=True).stdout:
        print("bench: RESULTS.md would be of no commit: commit or stash the changes first (git status)", file=sys.stderr)
        sys.exit(2)
    try:
        for name in chosen:
            print(f"== {name}", flush=True)
            BENCHES[name]()
    finally:
        end()
    head = ("# Results of `make bench`\n\nMedians of alternating runs on one machine; the ratio is of the pairs. Broker, publisher and\n"
            f"subscriber share its cores.\n\n{machine()}\n\n| what | Refold | beside | ratio | demanded |\n|---|---|---|---|---|\n")
    text = head + "".join("| " + " | ".join(r) + " |\n" for r in results)
    notes = os.path.join(BENCH, "NOTES.md")
    if writes:
        with open(f"{BENCH}/RESULTS.md", "w") as f:
            f.write(text + ("\n" + open(notes).read() if os.path.exists(notes) else ""))
    print("\n" + text)
    lines = missed(results)
    for line in lines:
        print(f"missed: {line}", file=sys.stderr)
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
