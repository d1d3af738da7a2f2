#!/usr/bin/env python3
"""make demo-certs: a fleet with certificates of Refold at a real Mosquitto that requires them, and a verdict.

    1. Every device gets a certificate and connects over TLS.
    2. One device is revoked. The broker refuses it, and Refold proves that.
    3. The CA is rotated: all devices renew over MQTT onto the new one, while the daemon is killed (kill -9). Then the
       broker trusts only the new CA, and is restarted: every device connects again.

    bench/demo_certs.py [--devices 200] [--keep]     --keep: leave everything running until Ctrl-C, for the pages
"""
import argparse, json, os, signal, subprocess, sys, time, urllib.request

from world import REFOLD, Database, Refold, answers, end, free_port, start, stop, wait_for, work

TENANT, OLD, NEW = "acme", "fleet-2026", "fleet-2027"
found = []  # what is wrong


def check(what, is_so, detail=""):
    print(f"  {'ok   ' if is_so else 'WRONG'} {what}{'' if is_so else ': ' + str(detail)}", flush=True)
    if not is_so:
        found.append(what)


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
        f.write(text)


class TLSBroker:
    """One listener for Refold, and one for devices: with TLS, a certificate for each device, and a CRL file."""

    def __init__(self):
        self.folder = f"{work}/broker"
        os.mkdir(self.folder)
        self.port, self.tls_port = free_port(), free_port()
        self.ca, self.crl, self.pid = (f"{self.folder}/{n}" for n in ("devices.pem", "fleet.crl", "pid"))
        self.server_ca = f"{self.folder}/server.pem"
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{self.folder}/server.key", "-out",
            self.server_ca], check=True, capture_output=True)
        # A device writes and reads below its own name only: its certificate is its identity.
        write(f"{self.folder}/acl", f"pattern readwrite tenant/{TENANT}/device/%u/#\n")
        user = os.environ.get("USER") or "root"
        write(f"{self.folder}/mosquitto.conf", "\n".join([
            "per_listener_settings true", f"user {user}", "max_queued_messages 0",
            "max_inflight_messages 0", "persistence true", f"persistence_location {self.folder}/", "log_type error", "log_type information",
            f"listener {self.port} 127.0.0.1", "allow_anonymous true",
            f"listener {self.tls_port} 127.0.0.1", f"certfile {self.server_ca}", f"keyfile {self.folder}/server.key",
            f"cafile {self.ca}", f"crlfile {self.crl}", "require_certificate true", "use_identity_as_username true",
            f"acl_file {self.folder}/acl", ""]))

    def up(self):
        log = open(f"{self.folder}/log", "a+")
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        self.process = start(["/usr/sbin/mosquitto", "-c", f"{self.folder}/mosquitto.conf"], stderr=log)

        def is_running():
            log.seek(begin)
            return " running" in log.read() and answers(self.tls_port)
        wait_for("mosquitto", is_running)
        # Not its own pid_file: a Mosquitto that is told to reload before it is running ends.
        write(self.pid, str(self.process.pid))

    def down(self):
        os.remove(self.pid)
        stop(self.process)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def settings(self):
        # Refold runs this command for each new CRL, and every 5 s while it fails, whether the broker runs or not.
        return [f"broker.crl_file={self.crl}", f"broker.crl_reload_command=kill -HUP $(cat {self.pid})",
                f"broker.crl_probe_url=mqtts://127.0.0.1:{self.tls_port}", f"broker.crl_probe_ca_file={self.server_ca}",
                "broker.crl_cut=takeover", f"broker.crl_cut_url=mqtt://127.0.0.1:{self.port}",
                "broker.crl_client_id=sim-{tenant}-{device}", "certificates.common_name={device}"]

    def accepts(self, folder, device):
        """Whether the broker takes a message of the device."""
        done = subprocess.run([
            "mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.tls_port), "--cafile", self.server_ca, "--cert",
            f"{folder}/{device}.pem", "--key", f"{folder}/{device}.key", "-q", "1", "-i", f"check-{device}", "-t",
            f"tenant/{TENANT}/device/{device}/note", "-m", "x"], capture_output=True, timeout=30)
        return done.returncode == 0


class RefoldFirst(Refold):
    """Up before its broker, which needs a CA and a CRL to start."""

    def ready(self):
        if self.process.poll() is not None:
            raise SystemExit("bench: refold run ended: " + open(self.log.name).read())
        try:
            return self.status() is not None
        except OSError:
            return False


class Demo:
    def __init__(self, count):
        self.devices = [f"dev-{n:04d}" for n in range(1, count + 1)]
        self.identities = f"{work}/identities"
        os.mkdir(self.identities)
        self.broker, self.database = TLSBroker(), Database()
        extra = [word for setting in self.broker.settings() for word in ("--set", setting)]
        self.refold = RefoldFirst(self.broker, self.database, *extra)
        print(f"pages: http://{self.refold.http}/  (token: {self.refold.data}/token)", flush=True)

    def is_subscribed(self):
        try:
            return self.refold.get("/readyz") is not None
        except OSError:
            return False

    def api(self, path):
        token = open(f"{self.refold.data}/token").read().strip()
        request = urllib.request.Request(f"http://{self.refold.http}/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path, body=None):
        return self.refold.post(f"/tenants/{TENANT}{path}", body)

    def certificates(self, query):
        items, after = [], ""
        while True:
            page = self.api(f"/tenants/{TENANT}/certificates?limit=100{query}{after}")
            items += page["items"]
            if page["next"] is None:
                return items
            after = f"&after={page['next']}"

    def events(self, schema):
        cat = subprocess.run([REFOLD, "log", "cat", "--data", self.refold.data, "--json"], capture_output=True, text=True)
        lines = (json.loads(line) for line in cat.stdout.splitlines() if f'"{schema}' in line)
        return [e for e in lines if e["topic"].startswith(schema)]

    def number(self, sql):
        return int(self.database.sql(sql) or 0)

    def connected(self):
        return self.number("select count(*) from refold.device_status where connected")

    def proved(self, authority):
        issued = [e["payload"]["number"] for e in self.events("crl.issued/") if e["payload"]["authority"] == authority]
        proofs = [e["payload"]["number"] for e in self.events("crl.proved/") if e["payload"]["authority"] == authority]
        return bool(issued) and issued[-1:] == proofs[-1:]

    # The steps

    def connect(self):
        authority = self.post("/authorities", {"id": OLD})
        write(self.broker.ca, authority["certificate"])
        wait_for("the CRL file", lambda: os.path.exists(self.broker.crl), 60)
        self.broker.up()
        wait_for("Refold's subscription", self.is_subscribed)
        begun = time.time()
        for first in range(0, len(self.devices), 1000):
            items = [{"device": d, "generate_key": "P-256"} for d in self.devices[first:first + 1000]]
            for item in self.post("/certificates", {"items": items})["items"]:
                write(f"{self.identities}/{item['device']}.pem", item["certificate"])
                write(f"{self.identities}/{item['device']}.key", item["private_key"], 0o600)
        print(f"{len(self.devices)} certificates issued in {time.time() - begun:.2f} s", flush=True)
        self.fleet = start([
            REFOLD, "simulate", "--broker-url", f"mqtts://127.0.0.1:{self.broker.tls_port}", "--ca-file", self.broker.server_ca,
            "--identities", self.identities, "--devices", str(len(self.devices)), "--tenants", "1", "--rate", "20"],
            stdout=open(f"{work}/fleet.out", "w"), stderr=subprocess.STDOUT)
        wait_for("the fleet", lambda: self.connected() == len(self.devices), 120, every=0.2)
        print(f"{len(self.devices)} devices are connected over TLS, each with its own certificate", flush=True)
        wait_for("the first proof", lambda: self.proved(OLD), 60, every=0.5)

    def revoke(self):
        device, other = self.devices[0], self.devices[1]
        check(f"{device} is accepted before", self.broker.accepts(self.identities, device))
        begun = time.time()
        self.post(f"/devices/{device}/certificates/revoke", {"reason": "keyCompromise"})
        wait_for("the refusal", lambda: not self.broker.accepts(self.identities, device), 30)
        print(f"  {device} refused {1000 * (time.time() - begun):.0f} ms after the revocation", flush=True)
        wait_for("the proof", lambda: self.proved(OLD), 30, every=0.2)
        proof = self.events("crl.proved/")[-1]["payload"]
        print(f"  CRL {proof['number']} is proved to be in force, {proof['milliseconds']} ms after it was issued", flush=True)
        check(f"{other} is accepted", self.broker.accepts(self.identities, other))
        wait_for("the cut", lambda: self.events("client.cut/"), 30, every=0.2)
        cut = self.events("client.cut/")[0]["payload"]
        check(f"{device} is disconnected, {cut['milliseconds']} ms after the revocation",
              (cut["device_id"], cut["outcome"]) == (device, "cut"), cut)

    def rotate(self):
        kept = self.devices[1:]
        new = self.post("/authorities", {"id": NEW, "replaces": OLD})
        both = open(self.broker.ca).read() + new["certificate"]
        write(self.broker.ca, both)
        self.broker.reload()
        wait_for("the CRL of both CAs", lambda: open(self.broker.crl).read().count("BEGIN X509 CRL") == 2, 60)
        wait_for("the proof of both", lambda: self.proved(OLD) and self.proved(NEW), 60, every=0.5)
        print("the broker trusts both CAs", flush=True)
        begun = time.time()
        self.post(f"/authorities/{OLD}/renew")
        wait_for("the first new certificate", lambda: self.certificates(f"&authority={NEW}"))
        self.refold.kill()
        self.refold.up()
        print("  the daemon was killed in the middle, and started again", flush=True)
        renewed = lambda: {c["device"] for c in self.certificates(f"&authority={NEW}&status=ACTIVE")}
        wait_for("the new certificates", lambda: renewed() == set(kept), 180, every=0.5)
        wait_for("the devices' reports", lambda: not self.certificates("&renewing=true"), 120, every=0.5)
        print(f"  {len(kept)} devices renewed over MQTT in {time.time() - begun:.1f} s", flush=True)
        old = self.certificates(f"&authority={OLD}&status=SUPERSEDED")
        check("every old certificate is superseded by a new one",
              len(old) == len(kept) and all(c["replaced_by"].startswith(NEW + "/") for c in old), len(old))
        steps = {name: len(self.events(f"certificate.renewal_{name}/")) for name in ("requested", "installed", "refused", "failed")}
        check(f"{len(kept)} requests, as many reports, no refusal",
              steps == {"requested": len(kept), "installed": len(kept), "refused": 0, "failed": 0}, steps)

        write(self.broker.ca, new["certificate"])
        self.broker.down()
        restart = self.refold.durable()
        self.broker.up()
        print("the broker trusts only the new CA, and was restarted", flush=True)
        wait_for("the devices", lambda: self.number(
            "select count(distinct device_id) from refold.device_connection_events "
            f"where event_type = 'CONNECTED' and position >= {restart}") >= len(kept), 120, every=0.5)
        print(f"  all {len(kept)} devices are connected with their new certificates", flush=True)
        check(f"{self.devices[0]}, which was revoked, is refused", not self.broker.accepts(self.identities, self.devices[0]))
        # The broker need not trust an authority whose certificates are all replaced.
        written = lambda: len([e for e in self.events("crl.written/") if e["payload"]["authority"] == OLD])
        before = written()
        self.refold.post(f"/authorities/{OLD}/crl", None)
        wait_for("the next CRL of the old CA", lambda: written() > before, 60, every=0.5)
        # Longer than a proof may take.
        reasons, until = set(), time.time() + 8
        while time.time() < until:
            reasons |= {reason["code"] for reason in self.refold.status()["problems"]}
            time.sleep(0.2)
        check("no fault is reported for the old CA, which the broker does not trust", "crl_unproved" not in reasons, reasons)
        check("the CRL of the new CA is proved", self.proved(NEW))

    def summary(self):
        stop(self.fleet, signal.SIGTERM)
        print("".join("  " + line for line in open(f"{work}/fleet.out") if line.startswith(("connections", "certificates"))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    begun = time.time()
    try:
        demo = Demo(options.devices)
        print("1. devices with certificates", flush=True)
        demo.connect()
        print("2. a revocation", flush=True)
        demo.revoke()
        print("3. a new CA, and all devices renewed over MQTT", flush=True)
        demo.rotate()
        if options.keep:
            print("running until Ctrl-C", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                pass
        demo.summary()
    finally:
        end()
    print(f"{'done' if not found else 'FAILED: ' + '; '.join(found)} in {time.time() - begun:.0f} s")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
