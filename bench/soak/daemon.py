"""`refold run` under the soak's control: settings, the clock shim, a stderr that the soak can block, and its status."""
import fcntl, json, os, select, signal, subprocess, threading, time, urllib.error, urllib.request

from processes import ROOT, Process, free_port, run, wait_for

REFOLD = os.environ.get("SOAK_REFOLD", os.path.join(ROOT, ".build/release/refold"))
# RLIMIT_NOFILE of each daemon; `run` refuses less than 200.
DESCRIPTORS = 300


class Stderr:
    """A small pipe with a reader that can stop reading, or leave."""

    def __init__(self, path):
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.path, self.is_blocked, self.is_closed = path, False, False
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with open(self.path, "ab") as log:
            while not self.is_closed:
                if self.is_blocked:
                    time.sleep(0.02)
                elif select.select([self.read_end], [], [], 0.05)[0]:
                    data = os.read(self.read_end, 65_536)
                    log.write(data.lstrip(b"\n"))
                    log.flush()
        os.close(self.read_end)

    def block(self):
        self.is_blocked = True
        time.sleep(0.1)
        # A description of its own: O_NONBLOCK belongs to it, and must not become the daemon's.
        own = os.open(f"/proc/self/fd/{self.write_end}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(own, b"\n" * 512)
        except BlockingIOError:
            pass
        finally:
            os.close(own)

    def unblock(self):
        self.is_blocked = False

    def close(self):
        self.is_closed = True


class Clock:
    """The wall clock of the daemons (Tests/TestSupport/clock_shim)."""

    def __init__(self, work):
        self.library, self.file = f"{work}/clock_shim.so", f"{work}/clock-offset"
        source = f"{ROOT}/Tests/TestSupport/clock_shim/clock_shim.c"
        done = run(["cc", "-O2", "-shared", "-fPIC", "-o", self.library, source])
        if done.returncode:
            raise RuntimeError(f"cc {source}: {done.stderr}")
        self.set(0)

    def set(self, seconds):
        with open(self.file + ".next", "w") as f:
            f.write(f"{seconds}\n")
        os.rename(self.file + ".next", self.file)

    @property
    def environment(self):
        return {"LD_PRELOAD": self.library, "CLOCK_SHIM_OFFSET_FILE": self.file}


class Daemon:
    def __init__(self, work, name, data, brokers, database_url, clock):
        self.work, self.name, self.data = work, name, data
        self.http = f"127.0.0.1:{free_port()}"
        self.process = self.stderr = None
        self.node = None
        self.is_expected_to_run = False
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("REFOLD_")} | clock.environment
        self.configuration = f"{work}/{name}.yaml"
        with open(self.configuration, "w") as f:
            # A device of the fleet publishes 10 messages a second at most: a drained backlog must not exceed the rate.
            f.write(f"data: {data}\nhttp: {self.http}\ndatabase:\n  url: {database_url}\n"
                    f"gate:\n  rate_per_second: 50\n  burst: 100\nlog:\n  segment_bytes: 4194304\nbrokers:\n")
            for broker in brokers:
                f.write(f"  {broker.name}:\n    url: mqtt://127.0.0.1:{broker.port}\n    keepalive_seconds: 5\n")

    def start(self, more=()):
        node = ["--node", self.node] if self.node else []
        log = f"{self.work}/{self.name}.log"
        self.stderr = Stderr(log)
        self.process = Process(["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", REFOLD, "run", "--config",
                                self.configuration, *node, *more], log, env=self.environment,
                               stderr=self.stderr.write_end, cwd=self.work)
        self.is_expected_to_run = True

    def kill(self):
        self.is_expected_to_run = False
        self.process.kill()
        self.stderr.close()

    def stop(self):
        """SIGTERM. Returns whether it ended by itself within 30 s."""
        self.is_expected_to_run = False
        ended = self.process.stop()
        self.stderr.close()
        return ended

    def died(self):
        """The exit code of a daemon that ended although nothing ended it."""
        if self.is_expected_to_run and self.process and not self.process.is_running:
            return self.process.popen.returncode
        return None

    def status(self, timeout=3):
        try:
            with urllib.request.urlopen(f"http://{self.http}/api/v1/status", timeout=timeout) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError, urllib.error.URLError):
            return None

    def wait_until_subscribed(self, seconds=60):
        def ready():
            status = self.status()
            return status and all(b["subscribed"] for b in status["brokers"])
        wait_for(f"{self.name} is subscribed at every broker", ready, seconds, every=0.2)

    def events(self, path, more=()):
        """Events of the log, as NDJSON, with exact payloads."""
        with open(path, "w") as out:
            done = subprocess.run([REFOLD, "log", "cat", "--data", self.data, "--json", "--base64", *more], stdout=out,
                                  stderr=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode:
            raise RuntimeError(f"log cat: {done.stderr}")
        return path

    def verb(self, *arguments):
        return subprocess.run([REFOLD, *arguments, "--data", self.data], capture_output=True, text=True,
                              env=self.environment)
