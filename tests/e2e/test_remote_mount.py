"""A mount on another machine: over TCP, with a copy of the site's key and nothing else."""

import errno
import fcntl
import os
import random
import signal
import socket
import sys
import threading

import pytest

import lib
from link import Link


class Tap:
    """Between a mount and its node: keeps what passes, in both directions."""

    def __init__(self, target):
        self.target, self.heard, self.lock = target, bytearray(), threading.Lock()
        self.server = socket.create_server((target[0], 0))
        self.address = self.server.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.server.accept()
                node = socket.create_connection(self.target)
            except OSError:
                return
            for pair in (client, node), (node, client):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, to):
        try:
            while data := source.recv(65536):
                with self.lock:
                    self.heard += data
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def passed(self, text):
        with self.lock:
            return text.encode() in self.heard


def work(mount, name):
    """A bit of everything; what it wrote."""
    data = {}
    os.mkdir(mount / name)
    for n, size in enumerate((0, 10, 5000, 70_000, 3_000_000)):
        data[f"{name}/f{n}"] = random.Random(n).randbytes(size)
        mount.write(f"{name}/f{n}", data[f"{name}/f{n}"], sync=n % 2 == 0)
    os.rename(mount / f"{name}/f1", mount / f"{name}/renamed")
    data[f"{name}/renamed"] = data.pop(f"{name}/f1")
    os.setxattr(mount / f"{name}/f2", "user.k", b"v")
    os.link(mount / f"{name}/f3", mount / f"{name}/linked")
    data[f"{name}/linked"] = data[f"{name}/f3"]
    return data


def test_mount_over_tcp_is_a_mount_like_any_other(world):
    site = world.site("alpha", listens=False, remote=True)
    tap = Tap(site.rpc)
    far, near = site.mount(via=tap.address), site.mount()
    for one, other, name in (far, near, "far"), (near, far, "near"):
        for path, data in work(one, name).items():
            assert other.read(path) == data, path
        assert os.getxattr(other / f"{name}/f2", "user.k") == b"v"
        assert other.names(name) == ["f0", "f2", "f3", "f4", "linked", "renamed"]
        one.write("shared", f"by {name}")
        assert other.text("shared") == f"by {name}"
    with open(far / "shared", "rb") as a, open(near / "shared", "rb") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    far.write("a-name-one-can-look-for", "content-one-can-look-for")
    assert near.text("a-name-one-can-look-for") == "content-one-can-look-for"
    assert len(tap.heard) > 3_000_000  # all of it came this way
    assert not tap.passed("a-name-one-can-look-for"), "a name passed in the clear"
    assert not tap.passed("content-one-can-look-for"), "content passed in the clear"
    far.stop()
    site.fsck()


# Takes the lock when it is told to for the first time, lets it go the second time, and ends the third.
# SIGUSR1 interrupts. Not by fcntl.flock: a call that succeeds looks there like one that was ended.
LOCKER = """\
import ctypes, fcntl, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
flock = ctypes.CDLL(None).flock
with open(sys.argv[1], "rb") as f:
    print("ready", flush=True)
    for what in (fcntl.LOCK_EX, fcntl.LOCK_UN):
        signal.sigwait([signal.SIGUSR2])
        print("tries", flush=True)
        print("done" if flock(f.fileno(), what) == 0 else "interrupted", flush=True)
    signal.sigwait([signal.SIGUSR2])
"""


class Locker:
    def __init__(self, world, path):
        self.log = os.path.join(world.dir, "locker.log")
        self.process = world.spawn([sys.executable, "-c", LOCKER, path], self.log)
        self.says("ready")

    def go_on(self, until):
        self.process.send_signal(signal.SIGUSR2)
        self.says(until)

    def interrupt(self):
        """Again and again: it says that it tries before it does."""
        def interrupted():
            self.process.send_signal(signal.SIGUSR1)
            return self.said() == "interrupted"
        lib.eventually(interrupted, 30, "interrupted")

    def said(self):
        return lib.tail(self.log).splitlines()[-1]

    def says(self, word):
        lib.eventually(lambda: self.said() == word, 30, word)


@pytest.fixture
def far(world):
    """A mount behind a link, one that is not, and a file of both: (world, link, far, near)."""
    site = world.site("alpha", listens=False, remote=True)
    link = Link(site.rpc, (site.rpc[0], 0))
    world.links.append(link)
    far, near = site.mount(via=link.address), site.mount()
    near.write("lock", "")
    return world, link, far, near


def free(mount):
    with open(mount / "lock", "rb") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_lock_whose_release_was_interrupted_goes_with_the_file(far):
    """Who gave up letting it go still has it, and loses it as any other: when the file is closed."""
    world, link, far, near = far
    locker = Locker(world, far / "lock")
    locker.go_on("done")
    link.cut("reset")
    locker.go_on("tries")
    locker.interrupt()
    link.heal()
    assert far.names() == ["lock"]  # it is back
    locker.process.send_signal(signal.SIGUSR2)
    lib.eventually(lambda: locker.process.poll() is not None, 30, "the end")
    lib.eventually(lambda: free(near), 10, "the lock is free")


def test_lock_that_was_given_up_is_nobodys(far):
    """The site has granted it, the answer went with the connection, and its caller has gone on."""
    world, link, far, near = far
    locker = Locker(world, far / "lock")
    link.cut("stall", "from")
    locker.go_on("tries")
    lib.eventually(lambda: not free(near), 30, "the site has the request")
    link.cut("reset")
    locker.interrupt()
    link.heal()
    assert far.names() == ["lock"]  # it is back
    lib.eventually(lambda: free(near), 10, "the lock is free")
    assert locker.process.poll() is None


@pytest.mark.parametrize("site_says", [True, False], ids=["trusted", "not-trusted"])
@pytest.mark.parametrize("mount_says", [True, False], ids=["clear", "sealed"])
def test_frames_are_clear_only_where_both_ends_say_so(world, site_says, mount_says):
    site = world.site("alpha", listens=False, remote=True, trusted=site_says)
    tap = Tap(site.rpc)
    far = site.mount("trusted_network" if mount_says else "", via=tap.address)
    far.write("a-name-one-can-look-for", "x")
    assert far.text("a-name-one-can-look-for") == "x"
    assert tap.passed("a-name-one-can-look-for") == (site_says and mount_says)


def test_who_has_not_the_key_gets_nothing(world):
    site = world.site("alpha", listens=False, remote=True)
    point, key = os.path.join(world.dir, "point"), os.path.join(world.dir, "key")
    os.mkdir(point)
    where = "%s:%d" % site.rpc

    def refused(*args):
        done = lib.claudefs("mount", *args, point, check=False)
        assert done.stderr.startswith("claudefs: mount: "), done
        assert not lib.mounted(point)
        return done.returncode, done.stderr
    with open(key, "wb") as f:
        f.write(bytes(32))
    code, said = refused("--site", where, "--key", key)
    assert code == 4 and "key" in said, said
    with open(key, "wb") as f:
        f.write(bytes(31))
    code, said = refused("--site", where, "--key", key)
    assert code == 6 and key in said, said
    code, said = refused("--site", where)
    assert code == 2 and "--key" in said, said
    code, said = refused("--site", "nowhere", "--key", key)
    assert code in (2, 6), said
    good = os.path.join(site.dir, "site.key")
    code, said = refused("--site", "%s:1" % site.rpc[0], "--key", good)
    assert code == 3 and "%s:1" % site.rpc[0] in said, said
    assert site.alive()


@pytest.mark.limit(200)
def test_it_outlasts_breaks_of_the_line_and_of_the_daemon(world):
    site = world.site("alpha", listens=False, remote=True)
    link = Link(site.rpc, (site.rpc[0], 0), seed=world.seed)
    world.links.append(link)
    far = site.mount(via=link.address)
    written, failed, done = {}, [], threading.Event()

    def write():
        try:
            n = 0
            while not done.is_set():
                n += 1
                data = random.Random(n).randbytes((10, 20_000, 300_000)[n % 3])
                far.write(f"f{n}", data, sync=n % 4 == 0)
                written[f"f{n}"] = data
        except OSError as e:
            failed.append(e)
    thread = threading.Thread(target=write)
    thread.start()

    def goes_on():
        before = len(written)
        lib.eventually(lambda: failed or len(written) > before + 5, 60, "it goes on")
    goes_on()
    for how in ("reset", "stall", "daemon"):
        if how == "daemon":
            site.kill()
            site.serve()
        else:
            link.cut(how)
            threading.Event().wait(0.5)
            link.heal()
        goes_on()
    done.set()
    thread.join()
    assert not failed, failed
    near = site.mount()
    for name, data in written.items():
        assert near.read(name) == data, name
    assert near.names() == sorted(written)


def test_memory_is_shared_only_on_one_machine(world):
    """A chunk read over TCP is the chunk: no descriptor can come with it."""
    site = world.site("alpha", listens=False, remote=True)
    far, near = site.mount(via=site.rpc), site.mount()
    data = random.Random(1).randbytes(9_000_000)
    near.write("large", data, sync=True)
    assert far.read("large") == data
    with open(far / "large", "rb") as f:
        assert os.pread(f.fileno(), 4096, 5_000_000) == data[5_000_000:5_004_096]
    with pytest.raises(OSError) as e:
        far.read("missing")
    assert e.value.errno == errno.ENOENT
