"""Listings that a mount makes of what it knows, without asking its site. Whoever changed a directory,
each mount lists at once what is in it (P1)."""

import ctypes
import errno
import os
import random

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_EXCHANGE = 2


@pytest.fixture(params=["", "sync"])
def pair(world, request):
    site = world.site("alpha", listens=False)
    return site.mount(request.param), site.mount(request.param)


def exchange(a, b):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), a)


def listed(path):
    """What a listing says, and what is found under each name: they must not differ."""
    found = {}
    with os.scandir(path) as entries:
        for e in entries:
            s = os.lstat(e.path)
            assert e.inode() == s.st_ino, e.path
            assert e.is_dir(follow_symlinks=False) == os.path.isdir(e.path), e.path
            found[e.name] = s.st_ino
    return found


class Model:
    """Directories d0.. with their names, changed through either mount. A failing call changes none."""

    def __init__(self, mounts, seed):
        self.mounts, self.rng = mounts, random.Random(seed)
        self.dirs = {f"d{n}": {} for n in range(3)}  # directory -> name -> kind
        for n, d in enumerate(self.dirs):
            os.mkdir(mounts[n % 2] / d)

    def pick(self):
        d = self.rng.choice(list(self.dirs))
        return d, f"n{self.rng.randrange(6)}"

    def step(self):
        m = self.rng.choice(self.mounts)
        (d, name), (e, other) = self.pick(), self.pick()
        path, path2 = m / f"{d}/{name}", m / f"{e}/{other}"
        kind, kind2 = self.dirs[d].get(name), self.dirs[e].get(other)
        how = self.rng.choice(["make", "make", "mkdir", "link", "take", "move", "move", "exchange"])
        try:
            getattr(self, how)(path, path2, (d, name, kind), (e, other, kind2))
        except OSError as error:
            assert error.errno in (errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENOTDIR,
                                   errno.EPERM), (how, path, path2, error)
        return how

    def make(self, path, path2, at, at2):
        flags = os.O_CREAT | os.O_WRONLY | self.rng.choice([0, os.O_EXCL])
        os.close(os.open(path, flags))
        self.dirs[at[0]].setdefault(at[1], "file")

    def mkdir(self, path, path2, at, at2):
        os.mkdir(path)
        self.dirs[at[0]][at[1]] = "dir"

    def link(self, path, path2, at, at2):
        os.link(path, path2)
        self.dirs[at2[0]][at2[1]] = "file"

    def take(self, path, path2, at, at2):
        (os.rmdir if at[2] == "dir" else os.unlink)(path)
        del self.dirs[at[0]][at[1]]

    def move(self, path, path2, at, at2):
        if os.path.exists(path) and os.path.exists(path2) and os.path.samefile(path, path2):
            return os.rename(path, path2)  # two names of one file: nothing happens
        os.rename(path, path2)
        del self.dirs[at[0]][at[1]]
        self.dirs[at2[0]][at2[1]] = at[2]

    def exchange(self, path, path2, at, at2):
        exchange(path, path2)
        self.dirs[at[0]][at[1]], self.dirs[at2[0]][at2[1]] = at2[2], at[2]

    def check(self):
        for d, names in self.dirs.items():
            if self.rng.randrange(2):  # a mount that knows all attributes lists by itself
                for name in names:
                    os.chmod(self.rng.choice(self.mounts) / f"{d}/{name}", 0o755)
            a, b = (listed(m / d) for m in self.mounts)
            assert sorted(a) == sorted(names) and a == b


@pytest.mark.parametrize("seed", [1, 2])
def test_random_changes_by_both_show_in_both_listings(pair, seed):
    model = Model(pair, seed)
    for n in range(250):
        how = model.step()
        try:
            model.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {n}: {how}") from error


def test_names_after_moves_that_take_nothing_away(pair):
    """Exchanges, moves over something, moves of directories: by the mount that lists."""
    a, b = pair
    for d in "d", "e", "d/dir", "e/dir2":
        os.mkdir(a / d)
    for name in "d/f", "d/g", "e/h":
        a.write(name, name)

    def check(expected):
        for d, names in expected.items():
            for name in names:
                os.chmod(a / f"{d}/{name}", 0o755)  # the answer tells its attributes
            found = listed(a / d)
            assert sorted(found) == sorted(names) and found == listed(b / d), d
    check({"d": ["dir", "f", "g"], "e": ["dir2", "h"]})
    exchange(a / "d/f", a / "d/g")
    check({"d": ["dir", "f", "g"]})
    exchange(a / "d/f", a / "e/dir2")
    check({"d": ["dir", "f", "g"], "e": ["dir2", "h"]})
    exchange(a / "d/dir", a / "d/f")
    check({"d": ["dir", "f", "g"]})
    exchange(a / "d/dir", a / "d/g")
    os.rename(a / "d/f", a / "e/h2")
    check({"d": ["dir", "g"], "e": ["dir2", "h", "h2"]})
    os.rename(a / "e/h2", a / "d/moved")
    os.rename(a / "e/h", a / "e/dir2")
    check({"d": ["dir", "g", "moved"], "e": ["dir2"]})


def test_attributes_in_a_listing_are_those_of_now(pair):
    """`ls -l` through one mount, while the other changes rights, sizes and link counts."""
    a, b = pair
    os.mkdir(a / "d")
    for n in range(20):
        a.write(f"d/f{n}", "x" * n)

    def sizes(m):
        with os.scandir(m / "d") as entries:
            return {e.name: (e.stat().st_size, e.stat().st_mode & 0o777, e.stat().st_nlink)
                    for e in entries}
    for n in range(20):
        assert sizes(a) == sizes(b)
        b.write(f"d/f{n}", "y" * (100 + n))
        os.chmod(b / f"d/f{n}", 0o600)
        assert sizes(a)[f"f{n}"] == (100 + n, 0o600, 1)
        os.link(a / f"d/f{n}", a / f"link{n}")
        assert sizes(b)[f"f{n}"][2] == sizes(a)[f"f{n}"][2] == 2


def test_positions_hold_in_a_directory_that_changes(pair):
    """A position of an open directory leads to the same entry, while it is there, whoever lists it:
    the mount from what it knows, or the site."""
    a, b = pair
    os.mkdir(a / "d")
    names = [f"f{n:03}" for n in range(300)]
    for name in reversed(names):
        a.write(f"d/{name}", "")
    for m, other in ((a, b), (b, a)):
        fd = os.open(m / "d", os.O_RDONLY | os.O_DIRECTORY)
        with os.scandir(fd) as entries:
            assert sorted(e.name for e in entries) == names
        d = LibcDir(m / "d")
        at = {}
        while (entry := d.read()) is not None:
            at[entry[0]] = entry[1]
        other.write("d/new", "")
        os.unlink(m / "d/f000")
        for name in names[1::7]:
            d.seek(at[name])
            assert d.read()[0] == name
        d.close()
        os.close(fd)
        os.unlink(other / "d/new")
        m.write("d/f000", "")


class DirEnt(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


LIBC.opendir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.restype = ctypes.POINTER(DirEnt)
for call in LIBC.readdir, LIBC.closedir, LIBC.telldir:
    call.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class LibcDir:
    """An open directory, with positions."""

    def __init__(self, path):
        self.d = LIBC.opendir(os.fsencode(path))
        assert self.d

    def read(self):
        at = LIBC.telldir(self.d)
        e = LIBC.readdir(self.d)
        return (e.contents.name.decode(), at) if e else None

    def seek(self, at):
        LIBC.seekdir(self.d, at)

    def close(self):
        LIBC.closedir(self.d)
