"""A mount that is asked to remember few inodes: the kernel drops what nobody uses, what is in use stays, and
a restart of the daemon looks at what is open only. Whatever was dropped is found again as it is (P1)."""

import fcntl
import mmap
import multiprocessing
import os
import re
import time

import pytest

import lib

FILES = int(os.environ.get("CLAUDEFS_MANY_FILES", "200000"))
IN_A_DIRECTORY = 1000
INODES = 20000


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.MULTILINE)[1]) << 10


def make(args):
    root, first, count = args
    for n in range(first, first + count):
        if n % IN_A_DIRECTORY == 0:
            os.mkdir(os.path.join(root, f"{n // IN_A_DIRECTORY:04}"))
        os.close(os.open(path_of(root, n), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


def path_of(root, n):
    return os.path.join(root, f"{n // IN_A_DIRECTORY:04}/f{n:06}")


def fill(root, count=FILES, parts=4):
    """In processes: threads of Python would wait for each other."""
    share = count // parts // IN_A_DIRECTORY * IN_A_DIRECTORY
    with multiprocessing.Pool(parts) as pool:
        pool.map(make, [(root, n * share, share) for n in range(parts)], chunksize=1)
    return share * parts


def pruned(mount):
    """(inodes before, asked for, inodes then) of each time that the kernel was asked."""
    with open(mount.log_path, encoding="utf-8") as f:
        return [tuple(map(int, m)) for m in re.findall(r" pruned inodes=(\d+) asked=(\d+) then=(\d+)", f.read())]


def recovered(mount):
    with open(mount.log_path, encoding="utf-8") as f:
        return [tuple(map(int, m)) for m in re.findall(r" recovered files=(\d+) inodes=(\d+)", f.read())]


@pytest.fixture
def few(world):
    """A mount of few inodes, and one that remembers all."""
    site = world.site("alpha", listens=False)
    mount = site.mount(f"inodes={INODES},log_level=debug")
    with open(mount.log_path, encoding="utf-8") as f:
        if " no_prune" in f.read():
            pytest.skip("this kernel is older than 6.18: it cannot be asked to drop inodes")
    return mount, site.mount()


class InUse:
    """What a process holds on to while a hundred times more files pass by."""

    def __init__(self, mount, other):
        self.mount, self.other = mount, other
        os.makedirs(mount / "used/here/below")
        for name in ("open", "dirty", "locked", "mapped", "path", "watched"):
            mount.write(f"used/{name}", name * 2000)
        self.open = os.open(mount / "used/open", os.O_RDWR)
        self.locked = os.open(mount / "used/locked", os.O_RDWR)
        fcntl.lockf(self.locked, fcntl.LOCK_EX)
        fd = os.open(mount / "used/mapped", os.O_RDWR)
        self.map = mmap.mmap(fd, 0)
        os.close(fd)                            # the mapping stays
        self.dirty = os.open(mount / "used/dirty", os.O_RDWR)
        self.by_path = os.open(mount / "used/path", os.O_PATH)
        self.inos = {name: os.stat(mount / f"used/{name}").st_ino
                     for name in ("open", "dirty", "locked", "mapped", "path")}
        os.makedirs(mount / "used/mounted")
        self.home = os.getcwd()
        os.chdir(mount / "used/here/below")

    def check(self):
        assert os.getcwd() == self.mount / "used/here/below"
        assert os.listdir("..") == ["below"]
        assert os.pread(self.open, 8, 0) == b"openopen"
        assert os.readlink(f"/proc/self/fd/{self.open}") == self.mount / "used/open"
        assert os.fstat(self.by_path).st_size == len("path") * 2000
        assert self.map[:12] == b"mappedmapped"
        for name, ino in self.inos.items():
            assert os.stat(self.mount / f"used/{name}").st_ino == ino, name
        with open(self.other / "used/locked", "r+b") as f, pytest.raises(OSError):
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # All of them take writes, which the other mount sees.
        word = os.urandom(8).hex().encode()
        os.pwrite(self.open, word, 100)
        os.fsync(self.open)
        self.map[100:116] = word
        self.map.flush()
        os.fsync(self.locked)
        for name in ("open", "mapped"):
            lib.eventually(lambda name=name: self.other.read(f"used/{name}")[100:116] == word, 20, name)
        os.close(os.open(word, os.O_CREAT | os.O_WRONLY))
        assert self.other.names("used/here/below") == [word.decode()]
        os.unlink(self.other / f"used/here/below/{word.decode()}")
        assert os.listdir(".") == []
        os.pwrite(self.dirty, word, 100)        # and is left dirty

    def end(self):
        os.chdir(self.home)
        self.map.close()
        for fd in (self.open, self.locked, self.dirty, self.by_path):
            os.close(fd)


def test_what_nobody_uses_is_dropped_and_what_is_used_stays(few):
    mount, other = few
    used = InUse(mount, other)
    try:
        used.check()
        before = resident_bytes(mount.process.pid)
        made = fill(mount.path)
        lib.eventually(lambda: pruned(mount)[-1][2] <= INODES, 60, "the kernel drops inodes")
        used.check()
        asked = pruned(mount)
        grown = resident_bytes(mount.process.pid) - before
        assert sum(a for _, a, _ in asked) >= made - INODES - max(n for n, _, _ in asked)
        # A hundred bytes an inode and their peak; a record of the size it had was a kilobyte for each.
        assert grown < 48 << 20, (grown, asked[-1])
        # All are there, as they were made, whether dropped or not; and found by the other mount.
        for n in range(0, made, 97):
            st = os.stat(path_of(mount.path, n))
            assert st.st_mode & 0o7777 == 0o640 and st.st_size == 0
        for n in range(0, made, 9973):
            assert os.stat(path_of(other.path, n)).st_ino == os.stat(path_of(mount.path, n)).st_ino
        used.check()
    finally:
        used.end()
    assert mount.read("used/dirty")[100:116] == other.read("used/dirty")[100:116]


def test_changes_by_others_are_seen_of_what_was_dropped(few):
    """What the kernel forgot the site tells nothing of; what it knows again it does (C2)."""
    mount, other = few
    made = fill(mount.path, 40000)
    lib.eventually(lambda: pruned(mount) and pruned(mount)[-1][2] <= INODES, 60, "the kernel drops inodes")
    some = range(0, made, 199)
    for n in some:
        assert os.stat(path_of(mount.path, n)).st_size == 0
    for n in some:
        with open(path_of(other.path, n), "w", encoding="ascii") as f:
            f.write(str(n))
        assert os.stat(path_of(mount.path, n)).st_size == len(str(n)), n
        with open(path_of(mount.path, n), encoding="ascii") as f:
            assert f.read() == str(n)
    for n in some:
        os.rename(path_of(other.path, n), path_of(other.path, n) + "-moved")
        assert not os.path.exists(path_of(mount.path, n)), n
        assert os.path.exists(path_of(mount.path, n) + "-moved"), n


def test_restart_of_the_daemon_looks_at_what_is_open_only(few):
    mount, other = few
    used = InUse(mount, other)
    try:
        made = fill(other.path, 40000)           # which remembers all
        site = mount.site
        site.kill()
        start = time.monotonic()
        site.serve()
        for m in (mount, other):
            assert os.stat(path_of(m.path, made - 1)).st_size == 0
        took = time.monotonic() - start
        used.check()
        # Held for a while after their last close are 1,024.
        files, inodes = recovered(other)[-1]
        assert files <= 1200 and inodes >= made, (files, inodes, took)
        for n in range(0, made, 499):            # what the kernels believed of before is not believed any more
            with open(path_of(other.path, n), "w", encoding="ascii") as f:
                f.write("new")
            assert os.stat(path_of(mount.path, n)).st_size == 3
    finally:
        used.end()


def test_option_out_of_range(world):
    site = world.site("alpha", listens=False)
    done = lib.claudefs("mount", "--dir", site.dir, "-o", "inodes=10", site.dir, check=False)
    assert done.returncode != 0 and "inodes at least 1000" in done.stderr
