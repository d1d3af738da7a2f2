"""A broker, a database and a daemon for whoever measures or shows them: each in a folder of its own, ended by `end()`."""
import json, os, shutil, signal, socket, subprocess, tempfile, time, urllib.error, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Another build may be looked at: BENCH_REFOLD=.build/debug/refold
REFOLD = os.environ.get("BENCH_REFOLD", os.path.join(ROOT, ".build/release/refold"))
work = tempfile.mkdtemp(prefix="refold-bench-", dir="/var/tmp")
os.chmod(work, 0o755)
running = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=60, every=0.02):
    deadline = time.time() + seconds
    while not condition():
        if time.time() > deadline:
            raise SystemExit(f"bench: gave up waiting for {what}")
        time.sleep(every)


def start(args, stdin=subprocess.DEVNULL, **kw):
    process = subprocess.Popen(args, start_new_session=True, stdin=stdin, **kw)
    running.append(process)
    return process


def stop(process, sig=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(sig)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def program(args, timeout=900):
    """Runs a program that prints one JSON object last, and returns it."""
    done = subprocess.run(args, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Broker:
    def __init__(self):
        self.port = free_port()
        path = tempfile.mkdtemp(dir=work)
        conf = os.path.join(path, "mosquitto.conf")
        with open(conf, "w") as f:
            f.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
                    f"max_inflight_messages 0\nlog_type error\nuser {os.environ.get('USER') or 'root'}\n")
        self.process = start(["/usr/sbin/mosquitto", "-c", conf])
        wait_for("mosquitto", lambda: answers(self.port))

    def stop(self):
        stop(self.process)


databases = []


class Database:
    """A PostgreSQL with its default durability, on a unix socket."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(dir=work)
        self.session = None
        self.user = "postgres" if os.geteuid() == 0 else None
        versions = sorted(int(v) for v in os.listdir("/usr/lib/postgresql") if v.isdigit())
        self.bin = f"/usr/lib/postgresql/{versions[-1]}/bin"
        if self.user:
            shutil.chown(self.folder, self.user)
        self.run("initdb", "-D", f"{self.folder}/c", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.url = f"postgresql:///postgres?host={self.folder}&user=postgres"
        databases.append(self)
        self.up()

    def command(self, name, *args):
        prefix = ["setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups", "--"] if self.user else []
        return prefix + [f"{self.bin}/{name}", *args]

    def run(self, name, *args, check=True):
        subprocess.run(self.command(name, *args), check=check, stdout=subprocess.DEVNULL, cwd="/",
                       stderr=None if check else subprocess.DEVNULL)

    def up(self):
        self.run("pg_ctl", "-D", f"{self.folder}/c", "-w", "-l", f"{self.folder}/log", "-o",
                 f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_wal_size=4GB", "start")

    def down(self, mode="fast", check=True):
        self.run("pg_ctl", "-D", f"{self.folder}/c", "-w", "-m", mode, "stop", check=check)

    def sql(self, text):
        """The first line of the answer, over one session: a new psql each time would take a core from those measured."""
        if self.session is None or self.session.poll() is not None:
            self.session = start([f"{self.bin}/psql", "-h", self.folder, "-U", "postgres", "-Atq"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        self.session.stdin.write(text + ";\n\\echo end\n")
        lines = []
        while (line := self.session.stdout.readline()) not in ("end\n", ""):
            lines.append(line.strip())
        return lines[0] if lines else None


class Refold:
    def __init__(self, broker, database, *extra):
        self.http = f"127.0.0.1:{free_port()}"
        self.data = tempfile.mkdtemp(dir=work)
        url = database.url if database else "postgresql:///none?host=/nowhere"
        self.log = open(os.path.join(self.data, "stderr"), "w")
        self.args = [
            REFOLD, "run", "--data", self.data, "--broker-url", f"mqtt://127.0.0.1:{broker.port}", "--database-url", url,
            "--http", self.http, "--set", "gate.rate_per_second=1000000", "--set", "gate.burst=10000000", *extra]
        self.up()

    def up(self):
        self.process = start(self.args, stdout=self.log, stderr=self.log)
        wait_for("refold run", self.ready)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def post(self, path, body=None):
        """A command of an operator; the answer's object."""
        request = urllib.request.Request(
            f"http://{self.http}/api/v1{path}", json.dumps(body or {}).encode(), method="POST", headers={
                "Content-Type": "application/json", "Authorization": "Bearer " + open(f"{self.data}/token").read().strip()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise SystemExit(f"bench: {path}: {error.read().decode()}")

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
            return answer.read()

    def ready(self):
        if self.process.poll() is not None:
            raise SystemExit("bench: refold run ended: " + open(self.log.name).read())
        try:
            return self.get("/readyz") is not None
        except OSError:
            return False

    def status(self):
        return json.loads(self.get("/api/v1/status"))

    def durable(self):
        """Events on disk, from the file that the daemon maps for its readers: asking costs the daemon nothing."""
        with open(f"{self.data}/log/durable", "rb") as f:
            return int.from_bytes(f.read(32)[24:32], "little")

    def pause_all(self):
        for p in self.status()["projections"]:
            subprocess.run([REFOLD, "projection", "pause", p["name"], "--http", self.http, "--data", self.data], check=True,
                           stdout=subprocess.DEVNULL)

    def caught_up(self):
        return all(p["lag_events"] == 0 for p in self.status()["projections"])

    def rss_mb(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024

    def stop(self):
        stop(self.process)


def end():
    """Ends all that was started here."""
    for process in running:
        stop(process, signal.SIGKILL)
    for database in databases:
        database.down("immediate", check=False)
    shutil.rmtree(work, ignore_errors=True)
