"""The name under which a loser of a conflict shows is a real one: every call takes it, at any site."""

import ctypes
import errno
import os
import re
import stat

import pytest

import lib

MARK = r"\.conflict-(alpha|beta)-[0-9a-f]{8}"
EXCHANGE = 2


def exchange(one, other):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), one)


def fails(number, call, *args):
    with pytest.raises(OSError) as e:
        call(*args)
    assert e.value.errno == number, e.value


def create_anew(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def overwrite(m, path):
    with open(m / path, "r+b") as f:
        f.write(b"OVER")
    assert m.text(path) == "OVERlpha"


def cut_short(m, path):
    os.truncate(m / path, 2)
    assert m.text(path) == "by"


def attributes(m, path):
    os.chmod(m / path, 0o604)
    os.utime(m / path, ns=(7, 10**18))
    os.setxattr(m / path, "user.k", b"v")
    st = os.stat(m / path)
    assert stat.S_IMODE(st.st_mode) == 0o604 and st.st_mtime_ns == 10**18
    assert os.getxattr(m / path, "user.k") == b"v"


def link(m, path):
    os.link(m / path, m / "linked")
    assert os.path.samefile(m / path, m / "linked") and os.stat(m / path).st_nlink == 2


def rename_away(m, path):
    os.rename(m / path, m / "moved")
    fails(errno.ENOENT, os.stat, m / path)
    assert m.text("moved") == "by alpha"


def rename_onto(m, path):
    m.write("other", "another")
    os.rename(m / "other", m / path)
    assert m.text(path) == "another" and "other" not in m.names()


def swap(m, path):
    m.write("swapped", "was plain")
    exchange(m / path, m / "swapped")
    assert m.text(path) == "was plain" and m.text("swapped") == "by alpha"


def unlink(m, path):
    os.unlink(m / path)
    fails(errno.ENOENT, os.stat, m / path)


def exists(m, path):
    fails(errno.EEXIST, create_anew, m / path)
    fails(errno.EEXIST, os.mkdir, m / path)
    assert m.text(path) == "by alpha"


CALLS = (overwrite, cut_short, attributes, link, rename_away, rename_onto, swap, unlink, exists)


def derived(m, name):
    return next(n for n in m.names() if re.fullmatch(re.escape(name) + MARK, n))


@pytest.mark.limit(240)
def test_every_call_takes_the_name_of_a_loser(two):
    world, a, b = two
    world.cut("reset")
    names = [f"{call.__name__}-{site}" for call in CALLS for site in "ab"]
    for m, text in ((a, "by alpha"), (b, "by beta")):
        for name in names:
            m.write(name, text)
    os.mkdir(a / "dir", 0o755)
    os.mkdir(b / "dir", 0o700)
    world.heal()
    lib.converge(a, b)
    for m, site in ((a, "a"), (b, "b")):
        for call in CALLS:
            name = f"{call.__name__}-{site}"
            loser = derived(m, name)
            assert m.text(loser) == "by alpha" and m.text(name) == "by beta", name
            call(m, loser)
            assert m.text(name) == "by beta", name
        lib.converge(a, b)
        for gone in {"linked", "moved", "swapped"} & set(m.names()):
            os.unlink(m / gone)
        lib.converge(a, b)
    lost = derived(b, "dir")
    b.write(f"{lost}/inside", "x")
    lib.converge(a, b)
    assert a.text(f"{lost}/inside") == "x" and a.names("dir") == []
    os.unlink(a / f"{lost}/inside")
    os.rmdir(a / lost)
    lib.converge(a, b)
    assert a.names() == b.names() and lost not in b.names() and "dir" in b.names()
    for site in (a.site, b.site):
        site.fsck()
