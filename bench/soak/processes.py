"""Programs that the soak starts: each in a session of its own, signalled by id, ended with the soak."""
import ctypes, os, pwd, shutil, signal, socket, subprocess, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
running = []
mounts = []
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def make_work_folder():
    path = tempfile.mkdtemp(prefix="refold-soak-", dir="/var/tmp")
    os.chmod(path, 0o755)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_for(what, condition, seconds=60, every=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds} s")
        time.sleep(every)


def as_user(user):
    """Command prefix that becomes another user, when we are root."""
    if os.geteuid() != 0 or not user:
        return []
    return ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--init-groups", "--"]


class Process:
    """A program and everything that it starts."""

    def __init__(self, args, log, env=None, user=None, stderr=None, cwd="/"):
        self.log = log
        # If the soak itself is killed, its programs end too (prctl(2)). exec of another user's program clears the
        # setting, so the brokers and PostgreSQL also get it from setpriv.
        args = as_user(user) + args
        if args[0] == "setpriv":
            args[1:1] = ["--pdeathsig", "KILL"]
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=output, stderr=output if stderr is None else stderr, env=env,
                cwd=cwd, start_new_session=True, preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        running.append(self)

    @property
    def pid(self):
        return self.popen.pid

    @property
    def is_running(self):
        return self.popen.poll() is None

    def tree(self):
        """Its id and those of its descendants, from proc(5)."""
        found, queue = [], [self.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/children") as f:
                        queue += [int(word) for word in f.read().split()]
            except OSError:
                pass
        return found

    def send(self, number):
        for pid in self.tree():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """kill -9 for all of it: stopped first, so that nothing is born meanwhile."""
        if self.is_running:
            self.send(signal.SIGSTOP)
            self.send(signal.SIGKILL)
        self.popen.wait()

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def stop(self, number=signal.SIGTERM, seconds=30):
        """Orderly; kill -9 when that takes too long. Returns whether it ended by itself."""
        if self.is_running:
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                return False
        return True

    def tail(self, size=3000):
        with open(self.log, errors="replace") as f:
            return f.read()[-size:]


def run(args, user=None, **more):
    return subprocess.run(as_user(user) + args, capture_output=True, text=True, cwd="/", **more)


def mount_small(path, size):
    os.makedirs(path, exist_ok=True)
    done = run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path])
    if done.returncode:
        return False
    mounts.append(path)
    return True


def end(work, keep=False):
    for process in reversed(running):
        if process.is_running:
            process.kill()
    for path in mounts:
        run(["umount", "-l", path])
    if not keep:
        shutil.rmtree(work, ignore_errors=True)
