"""The three brokers and PostgreSQL, private: free loopback ports, folders and cookies of their own, no system service.

Each is as durable as it can be set up. What each may still lose by its own kill -9 stands in bench/NOTES.md.
"""
import os, shutil, signal

from processes import Process, answers, as_user, free_port, run, wait_for


class Broker:
    kind = None
    v5 = False
    user = None
    # It acknowledges, while an orderly stop runs, messages that it then does not deliver (stop_loss.py).
    loses_as_it_stops = False

    def __init__(self, work, name=None):
        self.name = name or self.kind
        self.folder = os.path.join(work, self.name)
        os.makedirs(self.folder)
        self.port, self.process = free_port(), None
        self.prepare()
        if self.user and os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
            for path, folders, files in os.walk(self.folder):
                for name in folders + files:
                    shutil.chown(os.path.join(path, name), self.user)

    def spawn(self):
        self.process = Process(self.command(), os.path.join(self.folder, "server.log"), env=self.environment(),
                               user=self.user)

    def is_ready(self):
        """Accepts connections; started again if it ended at its start."""
        if not self.process.is_running:
            self.spawn()
        return answers(self.port)

    def start(self, seconds=120):
        self.spawn()
        try:
            wait_for(f"{self.name} accepts connections", self.is_ready, seconds)
        except TimeoutError as error:
            raise RuntimeError(f"{error}: {self.process.tail()}")
        return self

    def kill(self):
        self.process.kill()

    def stop(self):
        self.process.stop()

    def environment(self):
        return None

    def prepare(self):
        pass


class Mosquitto(Broker):
    kind = "mosquitto"
    v5 = True

    def prepare(self):
        # A save a second is the most that Mosquitto 2.0.11 does. autosave_on_changes does not save the last change.
        self.configuration = os.path.join(self.folder, "mosquitto.conf")
        with open(self.configuration, "w") as f:
            f.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
                    f"max_inflight_messages 0\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\n"
                    f"log_type warning\nlog_type notice\npersistence true\n"
                    f"persistence_location {self.folder}/\nautosave_interval 1\n"
                    + ("user root\n" if os.geteuid() == 0 else ""))

    def command(self):
        return ["/usr/sbin/mosquitto", "-c", self.configuration]

    def save(self):
        """SIGUSR1 saves the database now (mosquitto(8)); returns when it has been replaced."""
        path = f"{self.folder}/mosquitto.db"
        stamp = lambda: os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        before = stamp()
        self.process.popen.send_signal(signal.SIGUSR1)
        wait_for("Mosquitto saves", lambda: stamp() != before, 10)


class RabbitMQ(Broker):
    kind = "rabbitmq"
    user = "rabbitmq"

    def prepare(self):
        self.epmd_port, self.dist_port, self.amqp_port = free_port(), free_port(), free_port()
        self.epmd = None
        with open(os.path.join(self.folder, "enabled_plugins"), "w") as f:
            f.write("[rabbitmq_mqtt].\n")
        with open(os.path.join(self.folder, "rabbitmq.conf"), "w") as f:
            f.write(f"listeners.tcp.1 = 127.0.0.1:{self.amqp_port}\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
                    f"mqtt.allow_anonymous = true\nmqtt.prefetch = 1000\nlog.console = false\n"
                    f"disk_free_limit.absolute = 50MB\n")

    def environment(self):
        at = lambda name: os.path.join(self.folder, name)
        return {
            "PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"soak{self.port}@localhost", "RABBITMQ_MNESIA_BASE": at("data"),
            "RABBITMQ_LOG_BASE": at("log"), "RABBITMQ_CONFIG_FILE": at("rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": at("none"), "RABBITMQ_ENABLED_PLUGINS_FILE": at("enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": at("none"), "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none"}

    def command(self):
        root = "/usr/lib/rabbitmq/lib"
        version = sorted(name for name in os.listdir(root) if name.startswith("rabbitmq_server-"))[-1]
        return [f"{root}/{version}/sbin/rabbitmq-server"]

    def spawn(self):
        if self.epmd is None:
            # Its own port mapper, which would otherwise outlive it.
            self.epmd = Process(["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                                os.path.join(self.folder, "epmd.log"), env=self.environment(), user=self.user)
            wait_for("epmd", lambda: answers(self.epmd_port))
        super().spawn()


class NATS(Broker):
    kind = "nats"
    loses_as_it_stops = True
    # Seconds after which it redelivers, also on a live connection (the default is 30).
    ACK_WAIT = 10

    def prepare(self):
        self.client_port = free_port()
        self.configuration = os.path.join(self.folder, "nats.conf")
        with open(self.configuration, "w") as f:
            f.write(f'server_name: soak\nhost: 127.0.0.1\nport: {self.client_port}\n'
                    f'jetstream {{ store_dir: "{self.folder}/store" }}\n'
                    f'mqtt {{ host: 127.0.0.1, port: {self.port}, ack_wait: "{self.ACK_WAIT}s", '
                    f'max_ack_pending: 1000 }}\n')

    def command(self):
        return ["/usr/sbin/nats-server", "-c", self.configuration]


class PostgreSQL:
    """A cluster that is reachable by a unix socket only."""
    name = "postgresql"

    def __init__(self, work):
        self.folder = os.path.join(work, "pg")
        os.makedirs(self.folder)
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        versions = sorted((int(v) for v in os.listdir("/usr/lib/postgresql") if v.isdigit()))
        self.bin = f"/usr/lib/postgresql/{versions[-1]}/bin"
        done = run([f"{self.bin}/initdb", "-D", f"{self.folder}/c", "-U", "postgres", "--auth=trust", "-E", "UTF8",
                    "--locale=C.UTF-8", "--no-sync"], user=self.user)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr}")
        with open(f"{self.folder}/c/postgresql.conf", "a") as f:
            f.write(f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nmax_wal_size = 256MB\n"
                    f"recovery_init_sync_method = syncfs\nshared_buffers = 64MB\n")
        self.url = f"postgresql:///postgres?host={self.folder}&user=postgres"
        self.process = None

    def spawn(self):
        self.process = Process([f"{self.bin}/postgres", "-D", f"{self.folder}/c"], f"{self.folder}/server.log",
                               user=self.user)

    def is_ready(self):
        # After kill -9 its shared memory may be held for a moment: then it ends at its start.
        if not self.process.is_running:
            self.spawn()
        return run([f"{self.bin}/pg_isready", "-q", "-h", self.folder]).returncode == 0

    def start(self, seconds=90):
        self.spawn()
        wait_for("PostgreSQL accepts connections", self.is_ready, seconds, every=0.3)
        return self

    def sql(self, text):
        done = run([f"{self.bin}/psql", "-X", "-q", "-A", "-t", "-d", self.url, "-c", text])
        if done.returncode:
            raise RuntimeError(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def kill(self):
        self.process.kill()

    def stop(self):
        self.process.stop(signal.SIGINT)
