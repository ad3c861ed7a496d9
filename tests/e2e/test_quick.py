"""The main job, small: two sites, one tree."""

import errno
import os
import re
import subprocess
import sys
import time

import pytest

import lib
from lib import eventually


def test_write_at_alpha_read_at_beta(two):
    world, a, b = two
    start = time.monotonic()
    a.write("hello.txt", "hello from alpha\n")
    eventually(lambda: os.path.exists(b / "hello.txt") and b.text("hello.txt"), 30,
               "hello.txt with its content at beta")
    print(f"visible after {time.monotonic() - start:.3f} s")
    assert b.text("hello.txt") == "hello from alpha\n"
    b.write("back.txt", "hello from beta\n")
    eventually(lambda: os.path.exists(a / "back.txt") and a.text("back.txt") ==
               "hello from beta\n", 30, "back.txt at alpha")
    lib.converge(a, b)


def test_pairing_shows_what_was_there_before(world):
    alpha = world.site("alpha")
    a = alpha.mount()
    a.write("old/deep/file", b"x" * 100000)
    os.symlink("deep/file", a / "old/link")
    beta = world.site("beta", listens=False)
    world.pair(alpha, beta)
    b = beta.mount()
    lib.converge(a, b)
    assert b.read("old/link") == b"x" * 100000


def test_peer_list_and_status_name_the_other(two):
    world, a, b = two
    assert set(a.site.peers()) == {"beta"}
    assert set(b.site.peers()) == {"alpha"}
    assert a.site.status()["name"] == "alpha"
    assert a.site.status()["site"] != b.site.status()["site"]


def test_pause_and_resume(two):
    world, a, b = two
    lib.converge(a, b)
    a.site.cli("peer", "pause", "beta")
    assert a.site.peers()["beta"]["paused"]
    a.write("quiet.txt", "not yet")
    b.write("quiet there.txt", "not yet either")
    lib.holds(lambda: not os.path.exists(b / "quiet.txt") and
              not os.path.exists(a / "quiet there.txt"), 1, "nothing passes a paused link")
    a.site.restart()
    assert a.site.peers()["beta"]["paused"], "pause lasts over a restart"
    a.site.cli("peer", "resume", "beta")
    eventually(lambda: os.path.exists(b / "quiet.txt"), 30, "quiet.txt at beta after resume")
    lib.converge(a, b)
    assert a.names() == b.names() == ["quiet there.txt", "quiet.txt"]


def test_wait_times_out_and_says_what_is_missing(two):
    world, a, b = two
    lib.converge(a, b)
    a.site.cli("peer", "pause", "beta")
    a.write("late.txt", "x")
    # A paused peer is no "reachable" peer; an unpaused one that is held up is.
    waited = a.site.json("wait", "--timeout", "1")
    assert waited["peers"] == [{"peer": "beta", "state": "paused"}], waited
    a.site.cli("peer", "resume", "beta")
    a.site.wait()
    world.cut("stall")
    a.write("later.txt", "x")
    done = a.site.cli("wait", "--timeout", "1", check=False)
    assert done.returncode == 1, done
    assert "beta" in done.stderr
    world.heal()
    lib.converge(a, b)


OWN = lib.OWN_XATTRS
FILE_OWN, DIR_OWN = ("oid", "version", "origin", "placement"), ("oid", "placement")


def own_xattrs(mount, name, which=FILE_OWN):
    """What the system says of a file or directory in its virtual attributes."""
    return {x: os.getxattr(mount / name, OWN + x).decode() for x in which}


def test_virtual_attributes_say_what_the_system_knows(two):
    """claudefs-mount(1): which object it is, who wrote what it holds, and where that lies."""
    world, a, b = two
    a.write("dir/file", "one")
    a.write("dir/other", "one")
    lib.converge(a, b)
    first = own_xattrs(a, "dir/file")
    assert own_xattrs(b, "dir/file") == first
    assert first["origin"] == "alpha"
    assert re.fullmatch("[0-9a-f]{32}", first["oid"])
    assert first["placement"].startswith(f"shard={int(first['oid'][:4], 16)} "), first
    other = own_xattrs(a, "dir/other")
    assert other["oid"] != first["oid"] and other["version"] != first["version"]
    b.write("dir/file", "two")
    lib.converge(a, b)
    second = own_xattrs(b, "dir/file")
    assert own_xattrs(a, "dir/file") == second
    assert second["origin"] == "beta" and second["version"] != first["version"]
    assert second["oid"] == first["oid"]
    os.chmod(a / "dir/file", 0o600)
    os.rename(a / "dir/file", a / "moved")
    lib.converge(a, b)
    assert own_xattrs(a, "moved") == own_xattrs(b, "moved") == second  # no new content
    folder = own_xattrs(a, "dir", DIR_OWN)
    assert own_xattrs(b, "dir", DIR_OWN) == folder and folder["oid"] != second["oid"]
    for name in ("version", "origin"):  # a directory has no content
        with pytest.raises(OSError) as e:
            os.getxattr(a / "dir", OWN + name)
        assert e.value.errno == errno.ENODATA


def test_virtual_attributes_are_not_listed_and_not_to_be_changed(world):
    a = world.site("alpha").mount()
    a.write("dir/file", "content")
    os.setxattr(a / "dir", OWN + "policy", b"lazy")  # a setting, and no virtual one
    assert os.listxattr(a / "dir/file") == [] and os.listxattr(a / "dir") == [OWN + "policy"]
    for path, which in ((a / "dir/file", FILE_OWN), (a / "dir", DIR_OWN)):
        for name in (*which, "unheard-of"):
            for change in (lambda p, n: os.setxattr(p, n, b"forged"), os.removexattr):
                with pytest.raises(OSError) as e:
                    change(path, OWN + name)
                assert e.value.errno == errno.EPERM, (path, name)
    assert own_xattrs(a, "dir/file")["origin"] == "alpha"
    with pytest.raises(OSError) as e:
        os.setxattr(a / "dir", OWN + "policy", b"lasy")
    assert e.value.errno == errno.EINVAL
    os.removexattr(a / "dir", OWN + "policy")
    assert os.listxattr(a / "dir") == []


def test_background_mount_returns_when_usable(world):
    alpha = world.site("alpha")
    point = os.path.join(world.dir, "mnt")
    os.mkdir(point)
    lib.claudefs("mount", "--dir", alpha.dir, point)
    assert lib.mounted(point)
    with open(os.path.join(point, "file"), "w", encoding="ascii") as f:
        f.write("x")
    subprocess.run(["umount", point], check=True)
    assert not lib.mounted(point)
    assert os.listdir(point) == []


# Holds a file open over a restart. In a process of its own: a test that starts a daemon while it
# holds a file of a mount closes its copy of the file in the child, and so waits for itself.
HOLDER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as f:
    f.write(b"a")
    print("open", flush=True)
    sys.stdin.readline()
    f.write(b"b")
    os.fsync(f.fileno())
"""


def test_mount_survives_a_restart_of_the_daemon(world):
    alpha = world.site("alpha")
    a = alpha.mount()
    a.write("before", "1")
    with subprocess.Popen([sys.executable, "-c", HOLDER, a / "open"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        alpha.restart()
        holder.stdin.write(b"go on\n")
        holder.stdin.close()
        assert holder.wait(60) == 0
    assert a.text("before") == "1"
    assert a.text("open") == "ab"
    alpha.kill()
    alpha.serve()
    a.write("after", "2")
    assert a.names() == ["after", "before", "open"]
    alpha.stop()
    alpha.fsck()


# The same of a file that has no name any more.
HOLDER_OF_NAMELESS = """
import os, sys
with open(sys.argv[1], "w+b", buffering=0) as f:
    f.write(b"a" * 100000)
    os.fsync(f.fileno())
    os.unlink(sys.argv[1])
    print("open", flush=True)
    sys.stdin.readline()
    f.write(b"b")
    os.fsync(f.fileno())
    f.seek(0)
    whole = b"".join(iter(lambda: f.read(1 << 20), b""))
    assert whole == b"a" * 100000 + b"b", len(whole)
    assert os.fstat(f.fileno()).st_nlink == 0
"""


def test_open_file_without_a_name_survives_kill_9_of_the_daemon(world):
    alpha = world.site("alpha")
    a = alpha.mount()
    with subprocess.Popen([sys.executable, "-c", HOLDER_OF_NAMELESS, a / "open"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        alpha.kill()
        alpha.serve()
        holder.stdin.write(b"go on\n")
        holder.stdin.close()
        assert holder.wait(60) == 0
    assert a.names() == []
    alpha.stop()
    alpha.fsck()


def test_everything_is_there_after_a_restart(two):
    world, a, b = two
    a.write("d/small", "s")
    a.write("d/large", os.urandom(3 << 20))
    lib.converge(a, b)
    a.stop()
    b.stop()
    a.site.stop()
    b.site.stop()
    a.site.serve()
    b.site.serve()
    a.start()
    b.start()
    lib.converge(a, b)
    assert a.names("d") == ["large", "small"]
