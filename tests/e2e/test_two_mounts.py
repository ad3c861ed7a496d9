"""Two mounts of one site: what one does the other sees at once. No waiting for it: a call of the
second mount that starts after a call of the first returned must see what that did (P1)."""

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import sys
import threading

import pytest

import lib


@pytest.fixture(params=["", "sync"])
def pair(world, request):
    site = world.site("alpha", listens=False)
    return world, site.mount(request.param), site.mount(request.param)


def test_create_and_write(pair):
    world, a, b = pair
    for n in range(50):
        a.write(f"f{n}", f"content {n}")
        assert b.text(f"f{n}") == f"content {n}"
        b.write(f"f{n}", f"changed {n}, and longer")
        assert a.text(f"f{n}") == f"changed {n}, and longer"
    assert a.names() == b.names()


def test_name_that_was_missing_appears(pair):
    world, a, b = pair
    for n in range(20):
        assert not os.path.exists(b / f"x{n}")
        os.mkdir(a / f"x{n}")
        assert os.path.isdir(b / f"x{n}")


def test_directory_known_whole_hears_of_others(pair):
    """A mount answers by itself that a name is not there, in a directory that it made or listed.
    Whatever the other one makes or takes away there shows at once, and it can make it in turn."""
    world, a, b = pair
    for how in range(2):
        for n in range(15):
            d = f"d{how}-{n}"
            os.mkdir(b / d)
            if how == 0:
                os.mkdir(a / f"{d}/made")     # and so looked up here
            for m in (a, b):
                assert m.names(d) == (["made"] if how == 0 else [])
            assert not os.path.exists(a / f"{d}/x") and not os.path.exists(b / f"{d}/x")
            b.write(f"{d}/x", "b")
            assert a.text(f"{d}/x") == "b"
            os.rename(a / f"{d}/x", a / f"{d}/y")
            assert not os.path.exists(b / f"{d}/x") and b.text(f"{d}/y") == "b"
            os.link(b / f"{d}/y", b / f"{d}/x")
            assert os.stat(a / f"{d}/x").st_nlink == 2
            os.rename(b / f"{d}/x", b / f"{d}/y")         # two names of one file: nothing happens
            assert sorted(n for n in a.names(d) if n != "made") == ["x", "y"]
            with pytest.raises(FileExistsError):
                os.close(os.open(a / f"{d}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.unlink(b / f"{d}/x")
            os.close(os.open(a / f"{d}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            assert os.path.exists(b / f"{d}/x")


def test_attributes_of_directory_and_links_after_changes(pair):
    """What the answers to changes of names tell is what both mounts show."""
    world, a, b = pair
    os.mkdir(a / "d")
    os.mkdir(a / "e")
    a.write("d/f", "1")
    os.link(a / "d/f", a / "e/g")

    def both(path):
        for m, other in ((a, b), (b, a)):
            one, two = os.stat(m / path), os.stat(other / path)
            assert (one.st_mtime_ns, one.st_ctime_ns, one.st_nlink, one.st_size) == \
                (two.st_mtime_ns, two.st_ctime_ns, two.st_nlink, two.st_size), path
        return one
    steps = [lambda: a.write("d/h", "2"), lambda: os.unlink(b / "d/h"),
             lambda: os.rename(a / "e/g", a / "d/k"), lambda: os.unlink(a / "d/k"),
             lambda: os.symlink("x", b / "d/s"), lambda: os.rename(b / "d/s", b / "e/s"),
             lambda: os.mkdir(a / "d/sub"), lambda: os.rmdir(a / "d/sub")]
    for n, step in enumerate(steps):
        before = both("d").st_mtime_ns
        step()
        assert both("d").st_mtime_ns > before, n
        both("e")
        assert both("d/f").st_nlink == (2 if n < 3 else 1), n


def test_acl_set_by_the_other_is_there(pair):
    """A mount answers by itself that there is no ACL; not when the other has just set one."""
    world, a, b = pair
    acl = "system.posix_acl_access"
    value = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 6, 2**32 - 1, 2, 4, 4242, 4, 4, 2**32 - 1,
                        16, 4, 2**32 - 1, 32, 0, 2**32 - 1)
    for n in range(10):
        a.write(f"f{n}", "x")
        for m in (a, b):
            with pytest.raises(OSError) as none:
                os.getxattr(m / f"f{n}", acl)
            assert none.value.errno == errno.ENODATA
        os.setxattr(a / f"f{n}", acl, value)
        assert os.getxattr(b / f"f{n}", acl) == value == os.getxattr(a / f"f{n}", acl)
        os.removexattr(b / f"f{n}", acl)
        with pytest.raises(OSError) as none:
            os.getxattr(a / f"f{n}", acl)
        assert none.value.errno == errno.ENODATA


def test_rename_and_unlink(pair):
    world, a, b = pair
    os.mkdir(a / "d")
    a.write("f", "1")
    assert b.text("f") == "1"
    os.rename(b / "f", b / "d/g")
    assert not os.path.exists(a / "f") and a.text("d/g") == "1"
    os.unlink(a / "d/g")
    assert b.names("d") == []
    with pytest.raises(FileNotFoundError):
        b.text("d/g")
    os.rmdir(b / "d")
    assert a.names() == []


def test_rename_over_never_shows_a_gap(pair):
    world, a, b = pair
    a.write("name", "0")
    missing, done = [], threading.Event()

    def look():
        while not done.is_set():
            try:
                if not b.text("name").isdigit():
                    missing.append("torn")
            except FileNotFoundError:
                missing.append("missing")
    thread = threading.Thread(target=look)
    thread.start()
    for n in range(200):
        a.write("tmp", str(n))
        os.rename(a / "tmp", a / "name")
    done.set()
    thread.join()
    assert not missing, f"{len(missing)} times {missing[0]}"


def test_attributes(pair):
    world, a, b = pair
    a.write("f", "x")
    os.stat(b / "f")
    os.chmod(a / "f", 0o604)
    assert stat.S_IMODE(os.stat(b / "f").st_mode) == 0o604
    os.utime(b / "f", ns=(123456789, 987654321))
    assert os.stat(a / "f").st_mtime_ns == 987654321
    os.setxattr(a / "f", "user.k", b"v")
    assert os.getxattr(b / "f", "user.k") == b"v"
    os.removexattr(b / "f", "user.k")
    with pytest.raises(OSError) as e:
        os.getxattr(a / "f", "user.k")
    assert e.value.errno == errno.ENODATA
    os.link(a / "f", a / "g")
    assert os.stat(b / "f").st_nlink == 2


def test_append_by_both(pair):
    world, a, b = pair
    a.write("log", "")
    lines = 100

    def append(mount, who):
        for n in range(lines):
            with open(mount / "log", "ab", buffering=0) as f:
                f.write(f"{who} {n}\n".encode())
    threads = [threading.Thread(target=append, args=x) for x in ((a, "a"), (b, "b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    got = a.text("log").splitlines()
    assert b.text("log").splitlines() == got
    for who in "ab":
        assert [x for x in got if x.startswith(who)] == [f"{who} {n}" for n in range(lines)]


def test_truncate(pair):
    world, a, b = pair
    a.write("f", b"x" * 300000)
    assert len(b.read("f")) == 300000
    os.truncate(b / "f", 100001)
    assert a.read("f") == b"x" * 100001
    os.truncate(a / "f", 200000)
    assert b.read("f") == b"x" * 100001 + b"\0" * 99999
    os.truncate(b / "f", 0)
    assert os.stat(a / "f").st_size == 0 and a.read("f") == b""


def test_writes_to_two_parts_of_one_file(pair):
    world, a, b = pair
    a.write("f", bytes(1 << 20))
    with open(a / "f", "r+b") as fa, open(b / "f", "r+b") as fb:
        fa.seek(100)
        fa.write(b"from a")
        fb.seek(900000)
        fb.write(b"from b")
    for m in (a, b):
        data = m.read("f")
        assert data[100:106] == b"from a" and data[900000:900006] == b"from b"
        assert len(data) == 1 << 20


def test_open_file_outlives_its_name(pair):
    world, a, b = pair
    a.write("f", "still here")
    with open(b / "f", "rb") as f:
        os.unlink(a / "f")
        assert b.names() == []
        assert f.read() == b"still here"
        assert os.fstat(f.fileno()).st_nlink == 0


LOCKS = pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "fcntl"])


@LOCKS
def test_lock_is_handed_over(pair, lock):
    world, a, b = pair
    a.write("lock", "")
    with open(a / "lock", "r+b") as fa, open(b / "lock", "r+b") as fb:
        for first, second in ((fa, fb), (fb, fa)):
            lock(first, fcntl.LOCK_EX)
            with pytest.raises(BlockingIOError):
                lock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            got = threading.Event()

            def take(file=second, event=got):
                lock(file, fcntl.LOCK_EX)
                event.set()
            thread = threading.Thread(target=take)
            thread.start()
            assert not got.wait(0.3)
            lock(first, fcntl.LOCK_UN)
            assert got.wait(30), "the waiting lock was not granted"
            thread.join()
            lock(second, fcntl.LOCK_UN)


def test_record_locks_exclude_ranges(pair):
    world, a, b = pair
    a.write("lock", "x" * 100)
    with open(a / "lock", "r+b") as fa, open(b / "lock", "r+b") as fb:
        fcntl.lockf(fa, fcntl.LOCK_EX, 10, 0)
        fcntl.lockf(fb, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
        with pytest.raises(OSError) as e:
            fcntl.lockf(fb, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        assert e.value.errno in (errno.EACCES, errno.EAGAIN)
        fcntl.lockf(fa, fcntl.LOCK_UN, 5, 5)
        fcntl.lockf(fb, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)


def test_counter_under_a_lock(pair):
    world, a, b = pair
    a.write("counter", "0")
    rounds = 50

    def count(mount):
        for _ in range(rounds):
            with open(mount / "counter", "r+", encoding="ascii") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                value = int(f.read())
                f.seek(0)
                f.write(str(value + 1))
                f.flush()
                fcntl.flock(f, fcntl.LOCK_UN)
    threads = [threading.Thread(target=count, args=(m,)) for m in (a, b)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert a.text("counter") == b.text("counter") == str(2 * rounds)


# Not by fcntl.flock: a call that succeeds looks there like one that the signal has ended.
WAITER = """\
import ctypes, fcntl, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
flock = ctypes.CDLL(None).flock
with open(sys.argv[1], "rb") as f:
    print("waits", flush=True)
    print("has it" if flock(f.fileno(), fcntl.LOCK_EX) == 0 else "gave up", flush=True)
"""


def test_who_gives_up_a_lock_while_the_site_is_away_does_not_have_it(pair):
    """The daemon that starts anew knows nothing of a request that was waiting: that it is not
    there to be forgotten does not mean that it was granted."""
    world, a, b = pair
    a.write("lock", "")
    log = os.path.join(world.dir, "waiter.log")

    def said():
        return lib.tail(log).splitlines()[-1]
    with open(a / "lock", "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        waiter = world.spawn([sys.executable, "-c", WAITER, b / "lock"], log)
        lib.eventually(lambda: said() == "waits", 30, "the other waits")
        lib.holds(lambda: said() == "waits", 0.3, "the lock is waited for")
        a.site.kill()
        waiter.send_signal(signal.SIGUSR1)
        a.site.serve()

        def ended():
            """It says that it waits before it does, so the first signal may have been too early."""
            if waiter.poll() is None:
                waiter.send_signal(signal.SIGUSR1)
            return waiter.poll() is not None
        lib.eventually(ended, 60, "the other ends")
        assert said() == "gave up"
        fcntl.flock(holder, fcntl.LOCK_UN)
        with open(b / "lock", "rb") as f:  # nor does anything of it stand in line
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


@LOCKS
def test_lock_of_a_killed_mount_is_released(pair, lock):
    world, a, b = pair
    a.write("lock", "")
    holder = open(a / "lock", "r+b")
    lock(holder, fcntl.LOCK_EX)
    with open(b / "lock", "r+b") as f:
        with pytest.raises(BlockingIOError):
            lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        a.kill()
        lib.eventually(lambda: lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB) is None, 90,
                       "lock of a killed mount is released")
    try:
        holder.close()
    except OSError:
        pass


def test_large_directory_is_listed_whole(pair):
    world, a, b = pair
    os.mkdir(a / "d")
    names = sorted(f"{n:05}-{'x' * (n % 200)}" for n in range(3000))
    for name in names:
        with open(a / f"d/{name}", "w", encoding="ascii"):
            pass
    assert b.names("d") == names
    for name in names[::2]:
        os.unlink(b / f"d/{name}")
    assert a.names("d") == names[1::2]


# ---- new files of which the first mount keeps attributes until it commits them ----

class New:
    """A file that `mount` makes, writes, gives attributes and does not close."""
    count = 0

    def __init__(self, mount, content=b"new", directory="."):
        New.count += 1
        self.mount, self.n = mount, New.count
        self.name = f"{directory}/new{self.n}"
        self.fd = os.open(mount / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        if content:
            os.write(self.fd, content)
        os.fchown(self.fd, 4000 + self.n, 5000 + self.n)
        os.fchmod(self.fd, 0o640)
        os.utime(self.fd, ns=(1_000_000_000 * self.n + 1, 1_500_000_000 * self.n + 7))
        self.check(os.fstat(self.fd))

    def check(self, s, mtime=True):
        assert (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, s.st_nlink) == \
            (0o640, 4000 + self.n, 5000 + self.n, 1), self.name
        assert s.st_atime_ns == 1_000_000_000 * self.n + 1
        if mtime:
            assert s.st_mtime_ns == 1_500_000_000 * self.n + 7

    def check_all(self, *mounts):
        self.check(os.fstat(self.fd))
        for m in mounts:
            self.check(os.stat(m / self.name))


def test_attributes_of_a_file_that_is_not_closed_show_at_once(pair):
    world, a, b = pair
    os.mkdir(a / "d")
    for content in (b"new", b"", b"x" * 300_000):
        f = New(a, content)
        f.check(os.stat(b / f.name))                              # looked up
        f.check_all(a, b)
        f = New(a, content)
        with open(b / f.name, "rb") as g:                         # opened
            f.check(os.fstat(g.fileno()))
        f.check_all(a, b)
        f = New(a, content)
        os.rename(b / f.name, b / f"d/renamed{f.n}")              # moved
        f.name = f"d/renamed{f.n}"
        f.check_all(a, b)
        f = New(a, content, "d")
        assert os.path.basename(f.name) in b.names("d")           # listed
        with os.scandir(b / "d") as entries:
            for e in entries:
                if e.name == os.path.basename(f.name):
                    f.check(e.stat())
        f.check_all(a, b)
        f = New(a, content)
        os.unlink(b / f.name)                                     # removed
        assert os.fstat(f.fd).st_nlink == 0 and stat.S_IMODE(os.fstat(f.fd).st_mode) == 0o640
        f = New(a, content)
        os.link(b / f.name, b / f"{f.name}-link")                 # linked
        os.unlink(a / f"{f.name}-link")
        f.check_all(a, b)
        f = New(a, content)
        os.chmod(b / f.name, 0o604)                               # set anew by the other
        assert stat.S_IMODE(os.fstat(f.fd).st_mode) == 0o604
        os.chown(a / f.name, 1, 2)
        assert os.stat(b / f.name).st_uid == 1 and stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o604


def test_what_follows_the_look_of_the_other_shows_at_once(pair):
    """After the first look nothing is kept back; closing changes nothing that was set."""
    world, a, b = pair
    for how in range(3):
        f = New(a)
        if how == 0:
            f.check(os.stat(b / f.name))
        if how == 1:
            os.fsync(f.fd)
        os.fchmod(f.fd, 0o700)
        assert stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o700
        os.fchmod(f.fd, 0o640)
        f.check_all(a, b)
        os.write(f.fd, b" and more")
        assert os.fstat(f.fd).st_mtime_ns > 10**18                # a write is later than the time
        if how == 2:
            os.utime(f.fd, ns=(1_000_000_000 * f.n + 1, 1_500_000_000 * f.n + 7))
        os.close(f.fd)
        for m in (a, b):
            f.check(os.stat(m / f.name), mtime=how == 2)
            assert (os.stat(m / f.name).st_mtime_ns > 10**18) == (how != 2)
            assert m.text(f.name) == "new and more"


def test_attributes_of_closed_files_are_as_set(pair):
    """What tar does: nobody looks in between."""
    world, a, b = pair
    files = [New(a, content) for content in (b"", b"small", b"y" * 100_000) for _ in range(5)]
    for f in files:
        before = os.fstat(f.fd)
        os.close(f.fd)
        f.check(os.stat(a / f.name))
        assert os.stat(a / f.name).st_size == before.st_size
    for f in files:
        f.check(os.stat(b / f.name))


def test_set_id_bits_and_acls_of_a_new_file(pair):
    world, a, b = pair
    acl = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 6, 2**32 - 1, 2, 4, 4242, 4, 4, 2**32 - 1,
                      16, 4, 2**32 - 1, 32, 0, 2**32 - 1)
    f = New(a)
    os.fchmod(f.fd, 0o4755)
    assert stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o4755
    os.fchown(f.fd, 1, 1)
    assert stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o755
    f = New(a)
    os.setxattr(f.fd, "system.posix_acl_access", acl)
    os.fchmod(f.fd, 0o600)
    os.close(f.fd)
    for m in (a, b):
        assert stat.S_IMODE(os.stat(m / f.name).st_mode) == 0o600
        assert os.stat(m / f.name).st_uid == 4000 + f.n
        assert len(os.getxattr(m / f.name, "system.posix_acl_access")) == len(acl)


def test_two_mounts_that_look_at_each_others_new_files(pair):
    """Each waits for the other's attributes, in one directory, with names coming and going."""
    world, a, b = pair
    rounds, barrier, failed = 40, threading.Barrier(2), []
    os.mkdir(a / "d")

    def work(me, other, tag):
        try:
            for n in range(rounds):
                fd = os.open(me / f"d/{tag}{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                os.write(fd, b"1")
                os.fchmod(fd, 0o644)
                barrier.wait(60)
                theirs = me / f"d/{'ba'['ab'.index(tag)]}{n}"
                assert stat.S_IMODE(os.stat(theirs).st_mode) == 0o644, n
                os.rename(theirs, theirs + "-moved")
                os.close(fd)
                barrier.wait(60)
        except BaseException as e:              # pylint: disable=broad-except
            failed.append(e)
            barrier.abort()
    threads = [threading.Thread(target=work, args=(a, b, "a")),
               threading.Thread(target=work, args=(b, a, "b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    assert a.names("d") == b.names("d") and len(a.names("d")) == 2 * rounds
    for name in a.names("d"):
        assert stat.S_IMODE(os.stat(b / f"d/{name}").st_mode) == 0o644


def test_new_file_of_a_mount_that_is_killed_or_hangs(pair):
    """Whoever waits for it gets on when the site has given that mount up."""
    world, a, b = pair
    f = New(a)
    g = New(a)
    a.process.send_signal(signal.SIGSTOP)
    found = os.stat(b / f.name)                 # waits until the session has expired
    assert stat.S_IMODE(found.st_mode) in (0o600, 0o640) and found.st_uid in (0, 4000 + f.n)
    a.process.send_signal(signal.SIGCONT)
    os.fchmod(f.fd, 0o604)                      # under a new session
    assert stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o604
    a.kill()
    os.rename(b / g.name, b / "moved")
    assert stat.S_IMODE(os.stat(b / "moved").st_mode) in (0o600, 0o640)


def all_stand(pid):
    states = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="utf-8") as f:
            states.append(f.read().rpartition(")")[2].split()[0])
    return set(states) == {"T"}


def test_calls_that_meet_the_end_of_their_session_are_made_under_the_next(pair):
    """A mount that hung for longer than its session lasts: the site answers each of its connections that the
    session is over. No call fails of that."""
    world, a, b = pair
    files = [New(a) for _ in range(24)]
    for f in files:
        os.fsync(f.fd)

    def each(call):
        failed = []

        def run(f):
            try:
                call(f)
            except OSError as e:
                failed.append((f.name, e))
        threads = [threading.Thread(target=run, args=(f,)) for f in files]
        for t in threads:
            t.start()
        return threads, failed

    for t in each(lambda f: os.fchmod(f.fd, 0o600))[0]:   # each of the mount's threads has a connection
        t.join()
    a.process.send_signal(signal.SIGSTOP)
    lib.eventually(lambda: all_stand(a.process.pid), 30, "all its threads stand")
    threads, failed = each(lambda f: os.fchmod(f.fd, 0o604))
    os.chmod(b / files[0].name, 0o640)           # waits for a's word, until the session is over
    a.process.send_signal(signal.SIGCONT)
    for t in threads:
        t.join()
    assert not failed
    for f in files:
        assert stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o604
        os.close(f.fd)


def test_attributes_are_kept_over_a_restart_of_the_daemon(pair):
    world, a, b = pair
    f, g = New(a), New(a, b"")
    a.site.kill()
    a.site.serve()
    f.check(os.fstat(f.fd))
    lib.eventually(lambda: stat.S_IMODE(os.stat(b / f.name).st_mode) == 0o640 and
                   stat.S_IMODE(os.stat(b / g.name).st_mode) == 0o640, 20, "the mount is back")
    f.check_all(a, b)
    g.check_all(a, b)
    os.close(f.fd)
    os.close(g.fd)
    f.check(os.stat(b / f.name))
    g.check(os.stat(b / g.name))


def log_of(m):
    with open(m.log_path, encoding="utf-8") as f:
        return f.read()


def test_two_mounts_that_make_changes_again_at_once(pair):
    """Of files that both have open: the site needs the word of each for what the other makes again."""
    _, a, b = pair
    for name in "xy":
        a.write(name, name)
    opened = [os.open(m / name, os.O_RDWR) for m in (a, b) for name in "xy"]
    for round_ in range(6):
        done, count = threading.Event(), [0, 0]

        def change(n, path):
            while not done.is_set():
                os.chmod(path, 0o600 + count[n] % 0o100)
                count[n] += 1
        threads = [threading.Thread(target=change, args=(0, a / "x")),
                   threading.Thread(target=change, args=(1, b / "y"))]
        for t in threads:
            t.start()
        lib.eventually(lambda: min(count) > 20, 60, "both change their file")
        a.site.kill()
        a.site.serve()
        before = list(count)
        lib.eventually(lambda: all(now > was + 5 for now, was in zip(count, before)), 60,
                       "both go on")
        done.set()
        for t in threads:
            t.join()
        for m in (a, b):
            assert "change_lost" not in log_of(m) and "new_session=1" not in log_of(m), round_
            for n, name in enumerate("xy"):
                assert stat.S_IMODE(os.stat(m / name).st_mode) == 0o600 + (count[n] - 1) % 0o100
    for fd in opened:
        os.close(fd)


class Handle:
    """What name_to_handle_at(2) makes of a path; to be opened again whatever the kernel has forgotten."""

    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, path):
        self.bytes = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
        mount_id = ctypes.c_int()
        if self.libc.name_to_handle_at(-100, os.fsencode(path), self.bytes,
                                       ctypes.byref(mount_id), 0) != 0:
            raise OSError(ctypes.get_errno(), path)

    def open(self, mount):
        at = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = self.libc.open_by_handle_at(at, self.bytes, os.O_RDONLY)
            if fd < 0:
                raise OSError(ctypes.get_errno(), mount.path)
            return fd
        finally:
            os.close(at)


def kernel_forgets():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2")


@pytest.mark.skipif(os.geteuid() != 0, reason="opening by handle takes root")
def test_handles_outlive_what_the_kernel_and_the_daemon_remember(pair):
    """An NFS server has nothing else: the inode number, a parent that is found again, the content."""
    _, a, b = pair
    a.write("d/e/file", "content")
    inos = [os.stat(a / p).st_ino for p in ("d/e/file", "d/e")]
    file, folder = Handle(a / "d/e/file"), Handle(a / "d/e")

    def check(name):
        fd = file.open(a)
        assert os.fstat(fd).st_ino == inos[0] and os.read(fd, 100) == b"content"
        os.close(fd)
        fd = folder.open(a)
        assert os.fstat(fd).st_ino == inos[1] and os.listdir(fd) == [name]
        assert os.stat("..", dir_fd=fd).st_ino == os.stat(a / "d").st_ino
        os.close(fd)
    kernel_forgets()
    check("file")
    os.rename(b / "d/e/file", b / "d/e/renamed")
    kernel_forgets()
    a.site.restart()
    check("renamed")
    os.unlink(b / "d/e/renamed")
    with pytest.raises(OSError) as e:
        file.open(a)
    assert e.value.errno == errno.ESTALE
