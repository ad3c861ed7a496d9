"""Real sites for tests: daemons, mounts, links between them, and how to compare what they show.

A test gets a `world` (conftest.py). All it starts lives in one temporary directory and is ended by
pid with the test; logs are printed when it fails. Waiting is always for a condition, see
eventually().
"""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time

import spawn
from link import Link

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("CLAUDEFS_BUILD", os.path.join(REPO, "build")))
PROGRAM = os.path.join(BUILD, "claudefs")
READY_S = 60
STOP_S = 30
GOODBYE_S = 3
COMMAND_MARK = "--- "  # of the line in a log that says what was started
# Sanitizers and a busy machine slow everything down alike.
SLOW = float(os.environ.get("CLAUDEFS_TEST_SLOW", "1"))


def eventually(condition, timeout=30, what="condition"):
    """Calls condition() until it returns something true, and returns that. An AssertionError or
    OSError of the condition counts as "not yet"; the last one is shown when time is up."""
    end = time.monotonic() + timeout * SLOW
    pause, last = 0.01, None
    while True:
        try:
            result = condition()
            if result:
                return result
            last = None
        except (AssertionError, OSError) as e:
            last = e
        if time.monotonic() >= end:
            raise AssertionError(f"not within {timeout * SLOW:.0f} s: {what}" +
                                 (f": {last}" if last else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def holds(condition, seconds, what="condition"):
    """The condition is true all the time. For what must not happen; keep `seconds` short."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"did not hold: {what}"
        time.sleep(0.05)


def allow_core_files():
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


# ---- what sanitizers say ----
SANITIZERS = ("ASAN", "LSAN", "UBSAN", "TSAN")
CRASHES = tuple(-int(s) for s in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL,
                                  signal.SIGFPE, signal.SIGTRAP))


def record_reports():
    """From now on the address or thread sanitizer of all that is started writes to a file of its
    own: nobody looks at the errors of a command that is to fail, or at the ones of a mount in the
    background. (That for undefined behaviour writes to the standard error all the same; see run()
    and logs().)"""
    where = tempfile.mkdtemp(prefix="claudefs-reports-")
    os.chmod(where, 0o1777)  # programs of other users, too
    for name in SANITIZERS:
        more = [f"log_path={where}/report"]
        if name in ("LSAN", "TSAN"):
            more += ["suppressions=" + os.path.join(REPO, "tests", name.lower() + ".supp"),
                     "print_suppressions=0"]
        old = os.environ.get(f"{name}_OPTIONS")
        os.environ[f"{name}_OPTIONS"] = ":".join([*([old] if old else []), *more])
    return where


def tells_of_crash(text):
    """Lines only a failed assertion or a sanitizer writes."""
    return any(sign in text for sign in ("assertion failed:", "defended:", "Sanitizer:",
                                         "runtime error:"))


def crash_told(path, size=12000):
    """From the first such line of a file on; empty when there is none."""
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if tells_of_crash(line):
                return line + f.read(size)
    return ""


def take_reports(where):
    """Name -> text of the reports that were written since the last time."""
    found = {}
    for name in sorted(os.listdir(where)):
        path = os.path.join(where, name)
        with open(path, encoding="utf-8", errors="replace") as f:
            found[name] = f.read()
        os.unlink(path)
    return found


class CommandFailed(AssertionError):
    def __init__(self, args, done):
        self.returncode, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        super().__init__(f"{' '.join(args)}: exit status {done.returncode}\n"
                         f"stdout: {done.stdout}\nstderr: {done.stderr}")


def environment():
    env = {k: v for k, v in os.environ.items() if k not in ("CLAUDEFS_DIR", "NOTIFY_SOCKET")}
    env["CLAUDEFS_DEFEND_ABORT"] = "1"
    env["TZ"] = "UTC"
    return env


def run(*args, check=True, timeout=120, **more):
    """Runs any command; text out. check: an exit status other than 0 is a failure."""
    args = [str(a) for a in args]
    done = subprocess.run(args, capture_output=True, text=True, timeout=timeout * SLOW,
                          errors="replace", check=False, **{"env": environment(), **more})
    crashed = done.returncode in CRASHES or (isinstance(done.stderr, str) and
                                             tells_of_crash(done.stderr))
    if crashed or check and done.returncode != 0:
        raise CommandFailed(args, done)
    return done


def claudefs(*args, **more):
    return run(PROGRAM, *args, **more)


def mounted(path):
    """Whether something is mounted there, without touching it: a dead mount would block."""
    return any(line[0] == path for line in _mounts())


def _mounts():
    """(path, device major:minor, type) of every mount, innermost last."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            words = line.split()
            path = words[4].encode(errors="surrogateescape").decode("unicode_escape")
            found.append((path, words[2], words[words.index("-") + 1]))
    return found


def unmount(path):
    """Away with it, whoever uses it and whether or not anybody serves it."""
    for _ in range(8):
        here = [m for m in _mounts() if m[0] == path]
        if not here:
            return
        minor = here[-1][1].split(":")[1]
        abort = f"/sys/fs/fuse/connections/{minor}/abort"
        if here[-1][2].startswith("fuse"):
            try:
                with open(abort, "w", encoding="ascii") as f:
                    f.write("1")
            except OSError:
                pass
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", path], capture_output=True, check=False)
        else:
            subprocess.run(["fusermount3", "-u", "-z", path], capture_output=True, check=False)


# Of every mount: scripts/soak runs all tests in other modes, too.
MOUNT_OPTIONS = os.environ.get("CLAUDEFS_MOUNT_OPTIONS", "")


class Mount:
    """One FUSE mount of a site; the program runs in the foreground, so that its pid is ours."""

    def __init__(self, site, number, options, via=None):
        self.site = site
        self.where = ["--dir", site.dir]
        if via:  # over TCP, from "another machine": all it has is a copy of the key
            key = os.path.join(site.world.dir, f"{site.name}.key")
            shutil.copy(os.path.join(site.dir, "site.key"), key)
            self.where = ["--site", "%s:%d" % tuple(via), "--key", key]
        self.options = ",".join(o for o in (MOUNT_OPTIONS, options) if o)
        self.path = os.path.join(site.world.dir, f"{site.name}-mnt{number}")
        self.log_path = os.path.join(site.world.dir, f"{site.name}-mnt{number}.log")
        self.process = None
        os.makedirs(self.path, exist_ok=True)

    def start(self):
        assert self.process is None, "it runs already"
        options = ["-o", self.options] if self.options else []
        self.process = self.site.world.spawn(
            [PROGRAM, "mount", *self.where, "-f", *options, self.path], self.log_path)

        def usable():
            code = self.process.poll()
            if code is not None:
                raise SystemError(f"mount of {self.site.name} ended, exit status {code}: "
                                  f"{tail(self.log_path)}")
            return mounted(self.path) and os.stat(self.path).st_ino is not None
        eventually(usable, READY_S, f"mount of {self.site.name}")
        return self

    def kill(self):
        """kill -9, and the dead mount point is cleared away."""
        self.site.world.kill(self.process)
        self.process = None
        unmount(self.path)

    def stop(self):
        """An orderly unmount."""
        if self.process is None:
            return
        run("umount" if os.geteuid() == 0 else "fusermount3",
            *([] if os.geteuid() == 0 else ["-u"]), self.path)
        code = self.site.world.join(self.process)
        self.process = None
        assert code == 0, f"mount ended with {code}: {tail(self.log_path)}"

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def write(self, name, data, sync=False):
        path = self / name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
            if sync:
                f.flush()
                os.fsync(f.fileno())

    def read(self, name):
        with open(self / name, "rb") as f:
            return f.read()

    def text(self, name):
        return self.read(name).decode()

    def names(self, name="."):
        return sorted(os.listdir(self / name))


class Site:
    """One site with its daemon. Other sites reach it through `link`, unless it only dials out."""

    def __init__(self, world, name, listens=True, shards=None, remote=False, trusted=False):
        self.world, self.name = world, name
        self.dir = os.path.join(world.dir, name)
        self.log_path = os.path.join(world.dir, f"{name}.log")
        self.mounts, self.process, self.link = [], None, None
        args = ["site", "create", name, "--dir", self.dir]
        if shards:
            args += ["--shards", str(shards)]
        if remote:  # mounts of other machines may come
            self.rpc = world.free_address()
            args += ["--listen", "%s:%d" % self.rpc]
        if trusted:
            args += ["--trusted-network"]
        if listens:
            self.wan = world.free_address()
            self.link = Link(self.wan, (self.wan[0], 0), seed=world.seed)
            world.links.append(self.link)
            args += ["--wan", "%s:%d" % self.wan, "--advertise", "%s:%d" % self.link.address]
        claudefs(*args)

    def serve(self, log="info", wait=True):
        assert self.process is None, f"{self.name} runs already"
        notify_path = os.path.join(self.world.dir, f"{self.name}.notify")
        if os.path.exists(notify_path):
            os.unlink(notify_path)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(notify_path)
        notify.setblocking(False)
        self.process = self.world.spawn([PROGRAM, "serve", "--dir", self.dir, "--log", log],
                                        self.log_path, NOTIFY_SOCKET=notify_path)
        if not wait:
            notify.close()
            return self

        def ready():
            try:
                if b"READY=1" in notify.recv(4096):
                    return True
            except BlockingIOError:
                pass
            code = self.process.poll()
            if code is not None:
                self.process = None
                raise SystemError(f"daemon of {self.name} ended, exit status {code}: "
                                  f"{tail(self.log_path)}")
            return False
        try:
            eventually(ready, READY_S, f"daemon of {self.name} ready")
        finally:
            notify.close()
        return self

    def stop(self):
        """SIGTERM; it must end well."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        code = self.world.join(self.process)
        self.process = None
        assert code == 0, f"daemon of {self.name} ended with {code}: {tail(self.log_path)}"

    def kill(self):
        self.world.kill(self.process)
        self.process = None

    def restart(self, **more):
        self.stop()
        return self.serve(**more)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def mount(self, options="", via=None):
        m = Mount(self, len(self.mounts), options, via)
        self.mounts.append(m)
        return m.start()

    def cli(self, *args, **more):
        return claudefs(*args, "--dir", self.dir, **more)

    def json(self, *args, **more):
        return json.loads(self.cli(*args, "--json", **more).stdout)

    def wait(self, timeout=60):
        """claudefs wait: in step with every reachable peer."""
        self.cli("wait", "--timeout", str(int(timeout * SLOW)), timeout=timeout + 60)

    def status(self):
        """Whatever it says of the others: its exit status is their health."""
        done = self.cli("status", "--json", check=False)
        assert done.returncode in (0, 1, 2), done
        return json.loads(done.stdout)

    def peers(self):
        """Name -> what `peer list` says."""
        return {p["name"]: p for p in self.json("peer", "list")["peers"]}

    def conflicts(self, resolved=False):
        return self.json("conflicts", "list", *(["--all"] if resolved else []))["conflicts"]

    def fsck(self):
        done = self.cli("fsck", check=False, timeout=300)
        assert done.returncode == 0, f"fsck of {self.name}: {done.stdout}{done.stderr}"

    def log(self):
        """What the daemon has written; without the lines of spawn(), which name the test's folder and
        so the test: a word of its name would be found whatever the daemon says."""
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return "".join(line for line in f if not line.startswith(COMMAND_MARK))


_spawner = None


def spawner():
    """Of the whole run. The first World makes it, before anything is mounted."""
    global _spawner
    if _spawner is None:
        _spawner = spawn.Server()
    return _spawner


class World:
    """Sites, links and processes of one test."""

    def __init__(self, name, seed=0):
        spawner()
        self.dir = tempfile.mkdtemp(prefix=f"claudefs-{name[:24]}-")
        os.chmod(self.dir, 0o755)  # other users look into mounts
        self.seed = seed
        self.random = random.Random(seed)
        self.sites, self.links, self.processes = [], [], []
        self.aborted = None
        self.early, self.crashed = {}, []
        self.lock = threading.Lock()
        draw = random.SystemRandom()
        self.host = f"127.{draw.randrange(1, 255)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"

    # ---- making ----
    def site(self, name, listens=True, serve=True, **more):
        s = Site(self, name, listens, **more)
        self.sites.append(s)
        return s.serve() if serve else s

    def pair(self, inviter, joiner):
        token = inviter.cli("peer", "invite").stdout.strip()
        joiner.cli("peer", "accept", token, timeout=300)

    def two(self):
        """Sites alpha and beta, paired."""
        alpha = self.site("alpha")
        beta = self.site("beta", listens=False)
        self.pair(alpha, beta)
        return alpha, beta

    def free_address(self):
        """An address of this test alone: loopback has 16 million hosts, this is one of them."""
        with socket.socket() as s:
            s.bind((self.host, 0))
            return s.getsockname()

    # ---- processes ----
    def spawn(self, args, log_path, **env):
        with open(log_path, "ab") as log:
            log.write(f"{COMMAND_MARK}{' '.join(args)}\n".encode())
        process = spawner().start(args, log_path, {**environment(), **env},
                                  self.dir)  # where a core file goes
        process.log_name = os.path.basename(log_path)
        with self.lock:
            self.processes.append(process)
        return process

    def kill(self, process):
        process.kill()
        self.join(process)

    def join(self, process):
        try:
            code = process.wait(STOP_S * SLOW)
        except subprocess.TimeoutExpired:
            stacks = thread_waits(process.pid)
            process.kill()
            process.wait()
            raise AssertionError(f"{process.args} did not end within {STOP_S} s:\n{stacks}") \
                from None
        with self.lock:
            if process in self.processes:
                self.processes.remove(process)
                self._look_at(process, code)
        return code

    def _look_at(self, process, code):
        """Nothing may crash, whether or not the test asks how it ended."""
        if code in CRASHES:
            self.crashed.append(f"{process.log_name} ({signal.Signals(-code).name})")

    def cut(self, how="stall"):
        for link in self.links:
            link.cut(how)

    def heal(self):
        for link in self.links:
            link.heal()

    # ---- ending ----
    def abort(self, why):
        """From a watchdog thread: whatever blocks in a mount gets an error now."""
        self.aborted = why
        with self.lock:
            processes = list(self.processes)
        for process in processes:
            process.kill()
        self._unmount_all()

    def _unmount_all(self):
        for path, _, _ in reversed(_mounts()):
            if path.startswith(self.dir + "/"):
                unmount(path)

    def end(self):
        """Ends all that runs, in order: what goes wrong on the way out is a failure like any other."""
        with self.lock:
            processes, self.processes = self.processes, []
        for process in processes:
            code = process.poll()
            if code:
                self.early[process.log_name] = code
            process.send_signal(signal.SIGCONT)
        self._unmount_all()
        # While there is a daemon to say goodbye to. A mount in which the test has files open goes on.
        for process in processes:
            if process.args[1] == "mount" and not self._ended(process, GOODBYE_S):
                process.terminate()
                self._await(process)
        for process in processes:
            process.terminate()
        for process in processes:
            self._await(process)
        self._unmount_all()
        for link in self.links:
            link.stop()

    @staticmethod
    def _ended(process, timeout):
        try:
            process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _await(self, process):
        if not self._ended(process, STOP_S):
            self.crashed.append(f"{process.log_name} (did not end within {STOP_S * SLOW:.0f} s: "
                                f"{thread_waits(process.pid)})")
            process.kill()
        self._look_at(process, process.wait())

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        """After the end: name -> the end of each log, and where each core was. Of programs that ended
        by themselves too early the log begins with how."""
        found = {}
        background = [f"{site.name}/mount.log" for site in self.sites]
        for name in sorted(os.listdir(self.dir) + background):
            path = os.path.join(self.dir, name)
            if name.endswith(".log") and os.path.exists(path):
                early = (f"!!! ended by itself, exit status {self.early[name]}\n"
                         if name in self.early else "")
                found[name] = early + (crash_told(path) or tail(path))
            elif name == "core" or name.startswith("core."):
                found[name] = backtrace(path)
        return found


def tail(path, size=12000):
    try:
        with open(path, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - size))
            return f.read().decode(errors="replace")
    except OSError as e:
        return str(e)


def backtrace(core):
    """Where a crashed program was, if a debugger is at hand."""
    if not shutil.which("gdb"):
        return "install gdb to see where"
    done = subprocess.run(["gdb", "-batch", "-nx", "-ex", "bt", PROGRAM, core], capture_output=True,
                          text=True, errors="replace", timeout=60, check=False)
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("#"))


def thread_waits(pid):
    """Where each thread of a process waits in the kernel; for a process that does not end."""
    lines = []
    try:
        for tid in sorted(os.listdir(f"/proc/{pid}/task")):
            with open(f"/proc/{pid}/task/{tid}/wchan", encoding="ascii") as f:
                lines.append(f"{tid} {f.read()}")
    except OSError as e:
        lines.append(str(e))
    return "\n".join(lines)


# ---- trees ----
OWN_XATTRS = "user.claudefs."


def xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {n: os.getxattr(path, n, follow_symlinks=False) for n in sorted(names)
                if not n.startswith(OWN_XATTRS)}
    except OSError as e:
        if e.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def file_hash(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def describe(path, links):
    """All that two sites must agree on, of one object. links: inode -> first path seen with it."""
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    said = {"mode": oct(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "nlink": st.st_nlink,
            "mtime": st.st_mtime_ns, "xattrs": xattrs(path)}
    if kind != stat.S_IFDIR:
        said["size"] = st.st_size
    if kind == stat.S_IFREG:
        said["content"] = file_hash(path)
    if kind == stat.S_IFLNK:
        said["target"] = os.readlink(path)
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        said["rdev"] = st.st_rdev
    return said, st


def tree(root, ignore=()):
    """Relative path -> description, for everything below root."""
    found, first = {}, {}
    for where, folders, files in os.walk(root, onerror=_raise):
        for name in sorted(folders) + sorted(files):
            path = os.path.join(where, name)
            relative = os.path.relpath(path, root)
            said, st = describe(path, first)
            if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
                # Hard links: which names belong together, whatever the inode numbers are.
                said["same as"] = first.setdefault((st.st_dev, st.st_ino), relative)
            found[relative] = {k: v for k, v in said.items() if k not in ignore}
        folders.sort()
    return found


def _raise(e):
    raise e


def differences(a, b, names=("first", "second")):
    """Sentences; empty when the trees are equal."""
    found = []
    for path in sorted(set(a) | set(b)):
        if path not in a:
            found.append(f"{path}: only in {names[1]}")
        elif path not in b:
            found.append(f"{path}: only in {names[0]}")
        else:
            for key in sorted(set(a[path]) | set(b[path])):
                x, y = a[path].get(key), b[path].get(key)
                if x != y:
                    found.append(f"{path}: {key}: {x!r} in {names[0]}, {y!r} in {names[1]}")
    return found


def compare(a, b, ignore=()):
    """Compares two folders once."""
    found = differences(tree(a, ignore), tree(b, ignore), (a, b))
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:40])


def same_trees(*mounts, timeout=20, ignore=()):
    """After `wait`: all mounts show the same tree. The last push to a mount may be on its way."""
    for other in mounts[1:]:
        eventually(lambda o=other: compare(mounts[0].path, o.path, ignore) is None, timeout,
                   f"same tree at {mounts[0].path} and {other.path}")


def converge(*mounts, timeout=90, trees=True):
    """All sites in step; then all mounts show the same tree."""
    for m in mounts:
        m.site.wait(timeout)
    if trees:
        same_trees(*mounts)
