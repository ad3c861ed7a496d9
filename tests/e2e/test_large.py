"""What is large, and what should cost nothing: sparse files of terabytes, copies by reference, where
data goes by the policy of its directory, a directory of very many entries."""

import concurrent.futures
import contextlib
import os
import threading
import time

import pytest

import lib

TIB = 1 << 40
ENTRIES = int(os.environ.get("CLAUDEFS_DIR_ENTRIES", "20000"))


def chunks(site):
    return site.status()["space"]["chunks"]


def bytes_of(site):
    return site.status()["space"]["live_bytes"]


def elsewhere(site):
    return site.json("fsck")["contents"]["elsewhere"]


def test_sparse_file_of_terabytes(two):
    """Holes take no room, at either site, and are seen as holes."""
    world, a, b = two
    with open(a / "sparse", "wb") as f:
        os.ftruncate(f.fileno(), 8 * TIB)
        os.pwrite(f.fileno(), b"middle", 3 * TIB)
        os.pwrite(f.fileno(), b"end", 8 * TIB - 3)
    lib.converge(a, b, trees=False)
    for mount in (a, b):
        path = mount / "sparse"
        st = os.stat(path)
        assert st.st_size == 8 * TIB and st.st_blocks * 512 < 64 << 20
        with open(path, "rb") as f:
            at = os.lseek(f.fileno(), 0, os.SEEK_DATA)
            assert 3 * TIB - (4 << 20) <= at <= 3 * TIB
            hole = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            assert 3 * TIB < hole <= 3 * TIB + (4 << 20)
            assert os.pread(f.fileno(), 6, 3 * TIB) == b"middle"
            assert os.pread(f.fileno(), 100, 8 * TIB - 3) == b"end"
            assert os.pread(f.fileno(), 4096, TIB) == b"\0" * 4096
        assert bytes_of(mount.site) < 1 << 20
    with open(b / "sparse", "r+b") as f:
        os.ftruncate(f.fileno(), 3 * TIB + 3)
    lib.converge(a, b, trees=False)
    assert os.stat(a / "sparse").st_size == 3 * TIB + 3
    with open(a / "sparse", "rb") as f:
        assert os.pread(f.fileno(), 100, 3 * TIB) == b"mid"


def test_copy_by_reference_moves_no_bytes(two):
    """copy_file_range of whole blocks stores nothing but the list of them, here and at the peer."""
    world, a, b = two
    data = os.urandom(48 << 20)
    a.write("original", data, sync=True)
    before = bytes_of(a.site)
    with open(a / "original", "rb") as src, open(a / "copy", "wb") as dst:
        left, at = len(data), 0
        while left > 0:
            n = os.copy_file_range(src.fileno(), dst.fileno(), left, at, at)
            assert n > 0
            left, at = left - n, at + n
        os.fsync(dst.fileno())
    assert bytes_of(a.site) - before < 1 << 20
    lib.converge(a, b, trees=False)
    assert b.read("copy") == data
    there = bytes_of(b.site)
    assert b.read("original") == data
    assert bytes_of(b.site) - there < 1 << 20  # it is the same chunks
    with open(a / "copy", "r+b") as f:  # and two files
        os.pwrite(f.fileno(), b"changed", 5 << 20)
    assert a.read("original") == data


def test_where_data_goes_by_policy(two):
    """Small files come at once and large ones when they are read, unless the directory says
    otherwise."""
    world, a, b = two
    for name in ("plain", "lazy", "lazy/eager", "eager", "pinned", "pinned/below"):
        os.mkdir(a / name)
        if os.path.basename(name) in ("lazy", "eager", "pinned"):
            os.setxattr(a / name, "user.claudefs.policy", os.path.basename(name).encode())
    lib.converge(a, b)
    small, large = os.urandom(300_000), os.urandom(20 << 20)
    a.write("plain/small", small, sync=True)
    lib.converge(a, b, trees=False)
    lib.eventually(lambda: elsewhere(b.site) == 0, 60, "a small file comes by itself")
    a.write("pinned/below/large", large, sync=True)
    lib.converge(a, b, trees=False)
    lib.eventually(lambda: elsewhere(b.site) == 0, 60, "a pinned file comes by itself")
    eager = {"eager/large": os.urandom(20 << 20), "lazy/eager/large": os.urandom(20 << 20)}
    for name, data in eager.items():  # of two directories above it the nearer one says
        a.write(name, data, sync=True)
        lib.converge(a, b, trees=False)
        lib.eventually(lambda: elsewhere(b.site) == 0, 60, f"{name} comes by itself")
    lazy = os.urandom(400_000)
    a.write("lazy/small", lazy, sync=True)
    lib.converge(a, b, trees=False)
    assert elsewhere(b.site) > 0
    other = large[::-1]
    a.write("plain/large", other, sync=True)
    lib.converge(a, b, trees=False)
    world.cut("reset")
    assert b.read("pinned/below/large") == large  # cut off, it has what was pinned, or eager
    assert all(b.read(name) == data for name, data in eager.items())
    assert b.read("plain/small") == small
    with pytest.raises(OSError):
        b.read("lazy/small")
    world.heal()
    lib.converge(a, b, trees=False)
    assert b.read("lazy/small") == lazy and b.read("plain/large") == other
    assert elsewhere(b.site) == 0
    b.site.fsck()


@contextlib.contextmanager
def timed(what):
    """Told with -s."""
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s", flush=True)


@pytest.mark.limit(300 + ENTRIES / 150)
def test_directory_of_many_entries(two):
    """CLAUDEFS_DIR_ENTRIES sets how many (20,000; scripts/soak: a million). Made by four threads,
    listed whole at the other site, looked up in it, and gone again. Says how long each takes."""
    world, a, b = two
    os.mkdir(a / "many")
    failures = []

    def make(first):
        try:
            for n in range(first, ENTRIES, 4):
                os.close(os.open(a / f"many/entry-{n:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as e:
            failures.append(e)
    threads = [threading.Thread(target=make, args=(first,)) for first in range(4)]
    with timed(f"{ENTRIES} made"):
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not failures
    for mount in (a, b):
        with timed("in step"):
            lib.converge(a, b, timeout=60 + ENTRIES / 500, trees=False)
        with timed(f"listed at {mount.site.name}"):
            assert len(os.listdir(mount / "many")) == ENTRIES
        with timed("200 looked up"):
            for n in world.random.sample(range(ENTRIES), 200):
                assert os.stat(mount / f"many/entry-{n:07}").st_size == 0
        with pytest.raises(FileNotFoundError):
            os.stat(mount / f"many/entry-{ENTRIES:07}")
    os.rename(b / "many/entry-0000007", b / "many/renamed")
    lib.converge(a, b, trees=False)
    assert os.path.exists(a / "many/renamed") and not os.path.exists(a / "many/entry-0000007")
    for site in (a.site, b.site):
        with timed(f"fsck of {site.name}"):
            site.fsck()
    with timed(f"{ENTRIES} removed"):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda entry: os.unlink(entry.path), os.scandir(b / "many")))
        os.rmdir(b / "many")
    with timed("in step"):
        lib.converge(a, b, timeout=60 + ENTRIES / 500)
    assert os.listdir(a.path) == []
