"""A site that is away for longer than journals are kept is given up; and comes back with its work."""

import errno
import os
import random
import shutil
import time

import pytest

import lib
from lib import eventually

# Longer than a daemon takes to start anew, on a slow machine and under a sanitizer, too.
AGE_S = max(10, int(5 * lib.SLOW))


@pytest.fixture
def three(world):
    """All reach each other; c is given up after a few seconds."""
    sites = [world.site(name) for name in "abc"]
    world.pair(sites[0], sites[1])
    world.pair(sites[0], sites[2])
    mounts = [s.mount() for s in sites]
    sites[0].cli("site", "keep-journal", "--age", f"{AGE_S}s")
    lib.converge(*mounts)
    return world, *mounts


def state_at(mount, name):
    return mount.site.peers()[name]["state"]


@pytest.mark.limit(300)
def test_away_too_long_is_given_up(three):
    """Not before its time, by most of the sites only, and with a word to the operator."""
    world, a, b, c = three
    assert c.site.json("site", "keep-journal")["age_s"] == AGE_S
    assert a.site.peers()["c"]["resync_in_seconds"] is None
    b.stop()
    b.site.stop()
    c.stop()
    c.site.stop()
    a.write("while c is away", "x")

    def left():
        return a.site.peers()["c"]["resync_in_seconds"]
    eventually(lambda: left() is not None, 20, "it runs out")
    assert 0 <= left() <= AGE_S
    assert "journals are kept for it" in a.site.cli("status", check=False).stdout
    eventually(lambda: a.site.peers()["c"]["resync_in_seconds"] == 0, 60, "it has run out")
    lib.holds(lambda: state_at(a, "c") == "unreachable", 8, "one of three gives nobody up")
    b.site.serve()
    b.start()
    for mount in (a, b):
        eventually(lambda m=mount: state_at(m, "c") == "removed", 60, "c is given up")
    assert state_at(a, "b") == "connected"
    assert "claudefs site return" in a.site.cli("status", check=False).stdout
    assert a.site.peers()["c"]["journal_kept_bytes"] == 0
    lib.converge(a, b)
    c.site.serve()
    eventually(lambda: c.site.status()["wan_state"] == "removed", 60, "c knows")
    assert "claudefs site return" in c.site.status()["wan_error"]
    for mount in (a, b):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_a_quiet_site_behind_another_is_not_given_up(world):
    """a-b-c without a link from a to c: a hears of c through b only, and nothing is kept for it."""
    a, b, c = (world.site("a"), world.site("b"), world.site("c"))
    world.pair(a, b)
    world.pair(b, c)
    for one, other in ((a, "c"), (c, "a")):
        eventually(lambda s=one, o=other: o in s.peers(), 30, "they know each other")
        one.cli("peer", "pause", other)
    a.cli("site", "keep-journal", "--age", f"{2 * AGE_S}s")
    m = a.mount()
    m.write("x", "1")
    lib.holds(lambda: a.peers()["c"]["state"] == "paused" and c.peers()["b"]["state"] == "connected",
              4 * AGE_S, "c stays a member")
    assert all(s.peers()[o]["state"] == "paused" for s, o in ((a, "c"), (c, "a")))
    a.cli("peer", "resume", "c")
    c.cli("peer", "resume", "a")
    eventually(lambda: a.peers()["c"]["state"] == "connected", 30, "the link is used")
    for site in (a, b, c):
        site.fsck()


# ---- coming back ----

def give_up(world, c, *others):
    """c is away until the others have given it up; its work there goes on."""
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    for mount in others:
        mount.write(f"nudge-{mount.site.name}", "x")
    for mount in others:
        eventually(lambda m=mount: state_at(m, "c") in ("removed", "leaving"), 90, "c is given up")
    c.site.cli("peer", "resume", "a")
    c.site.cli("peer", "resume", "b")
    eventually(lambda: c.site.status()["wan_state"] == "removed", 60, "c knows")


def bring_back(c):
    before = c.site.status()["site"]
    said = c.site.json("site", "return")
    assert said["before_id"] == before
    eventually(lambda: is_back(c), 60, "it is back, and connected")
    assert c.site.status()["site"] == said["after_id"] != before


def is_back(c):
    if not c.site.alive():
        return False
    try:
        status = c.site.status()
    except (lib.CommandFailed, AssertionError):
        return False
    return status["returning"] is None and not status["joining"] and \
        all(p["state"] == "connected" for p in status["peers"] if p["state"] != "removed")


def work_before(a):
    for name in ("edited", "edited by both", "renamed", "removed", "removed here, edited there",
                 "edited here, removed there", "replaced", "mode", "untouched"):
        a.write(f"old/{name}", f"{name} at first")
    a.write("old/inner/file", "inner")
    a.write("old/leaves/file", "leaves")
    a.write("old/dir/file", "in dir")
    os.mkdir(a / "old/empty")
    a.write("old/large", bytes(range(256)) * 4000)
    a.write("old/hard", "hard")


def work_away(c):
    """What a site does while it is away. Everything the file system knows is in it."""
    c.write("old/edited", "edited at c")
    c.write("old/edited by both", "c's edit")
    os.rename(c / "old/renamed", c / "old/new name")
    os.unlink(c / "old/removed")
    os.unlink(c / "old/removed here, edited there")
    c.write("old/edited here, removed there", "c's work")
    c.write("old/replaced.tmp", "replaced at c")
    os.rename(c / "old/replaced.tmp", c / "old/replaced")
    os.chmod(c / "old/mode", 0o600)
    os.setxattr(c / "old/mode", "user.note", b"by c")
    os.rename(c / "old/dir", c / "old/moved")
    c.write("old/moved/another", "beside")
    os.rmdir(c / "old/empty")
    shutil.rmtree(c / "old/leaves")
    with open(c / "old/large", "r+b") as f:
        f.seek(500_000)
        f.write(b"c was here")
    os.link(c / "old/hard", c / "old/hard too")
    c.write("new/deep/er/file", "made at c")
    c.write("new/big", bytes(reversed(range(256))) * 9000)
    os.symlink("deep/er/file", c / "new/link")
    os.mkfifo(c / "new/fifo")
    os.chmod(c / "new/deep", 0o2750)
    os.mkdir(c / "new/nothing inside")
    c.write("both", "c's of both")
    c.write("same", "the same at all")
    os.rename(c / "old/inner/file", c / "old/inner/out")


def work_meanwhile(a):
    a.write("old/edited by both", "a's edit")
    a.write("old/removed here, edited there", "a's work")
    os.unlink(a / "old/edited here, removed there")
    a.write("both", "a's of both")
    a.write("same", "the same at all")
    a.write("old/leaves/more", "a put something in")
    a.write("of a", "a's own")


def check_nothing_lost(mount):
    assert mount.text("old/edited") == "edited at c"
    assert mount.text("old/new name") == "renamed at first"
    assert not os.path.lexists(mount / "old/renamed")
    assert not os.path.lexists(mount / "old/removed")
    assert mount.text("old/removed here, edited there") == "a's work"
    assert mount.text("old/edited here, removed there") == "c's work"
    assert mount.text("old/replaced") == "replaced at c"
    assert not os.path.lexists(mount / "old/replaced.tmp")
    assert os.stat(mount / "old/mode").st_mode & 0o7777 == 0o600
    assert os.getxattr(mount / "old/mode", "user.note") == b"by c"
    assert mount.text("old/moved/file") == "in dir" and mount.text("old/moved/another") == "beside"
    assert not os.path.lexists(mount / "old/dir")
    assert not os.path.lexists(mount / "old/empty")
    assert mount.text("old/leaves/more") == "a put something in"
    assert not os.path.lexists(mount / "old/leaves/file")
    large = bytearray(bytes(range(256)) * 4000)
    large[500_000:500_010] = b"c was here"
    assert mount.read("old/large") == bytes(large)
    assert os.stat(mount / "old/hard").st_ino == os.stat(mount / "old/hard too").st_ino
    assert mount.text("new/deep/er/file") == mount.text("new/link") == "made at c"
    assert mount.read("new/big") == bytes(reversed(range(256))) * 9000
    assert os.stat(mount / "new/deep").st_mode & 0o7777 == 0o2750
    assert os.path.isdir(mount / "new/nothing inside")
    assert mount.text("same") == "the same at all" and mount.text("of a") == "a's own"
    assert mount.text("old/inner/out") == "inner"
    for where, name, mine, theirs in (("old", "edited by both", "c's edit", "a's edit"),
                                      (".", "both", "c's of both", "a's of both")):
        beside = [n for n in os.listdir(mount / where) if n.startswith(name + ".conflict-c-")]
        assert len(beside) == 1, os.listdir(mount / where)
        assert mount.text(f"{where}/{name}") == theirs
        assert mount.text(f"{where}/{beside[0]}") == mine
    assert not [n for n in os.listdir(mount / ".") if n.startswith("same.")]


def work_apart(a, b, c):
    """c goes on by itself, without the others, and they without c."""
    work_before(a)
    lib.converge(a, b, c)
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    work_away(c)
    work_meanwhile(a)
    lib.converge(a, b)


@pytest.mark.limit(400)
def test_comes_back_with_its_work(three):
    world, a, b, c = three
    work_apart(a, b, c)
    give_up(world, c, a, b)
    c.stop()
    bring_back(c)
    c.start()
    lib.converge(a, b, c)
    for mount in (a, b, c):
        check_nothing_lost(mount)
    rules = sorted(r["rule"] for r in c.site.conflicts())
    assert rules == [2, 3, 3, 4, 6], c.site.conflicts()
    for mount in (a, b, c):
        mount.site.fsck()
    c.write("afterwards", "x")
    lib.converge(a, b, c)


@pytest.mark.limit(500)
def test_killed_again_and_again_on_its_way_back(three):
    world, a, b, c = three
    rng = random.Random(7)
    work_before(a)
    lib.converge(a, b, c)
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    work_away(c)
    for n in range(400):
        c.write(f"many/{n % 7}/{n}", f"file {n}")
    work_meanwhile(a)
    lib.converge(a, b)
    give_up(world, c, a, b)
    c.stop()
    said = c.site.json("site", "return", "--no-wait")
    for round_ in range(14):
        time.sleep(rng.random() * 0.5)
        c.site.kill()
        c.site.serve(wait=round_ % 3 != 0)
    eventually(lambda: is_back(c), 120, "it is back")
    assert c.site.status()["site"] == said["after_id"]
    c.start()
    lib.converge(a, b, c)
    for mount in (a, b, c):
        check_nothing_lost(mount)
        assert all(mount.text(f"many/{n % 7}/{n}") == f"file {n}" for n in range(400))
        assert len(os.listdir(mount / "many/0")) == len(range(0, 400, 7))
    rules = sorted(r["rule"] for r in c.site.conflicts())
    assert rules == [2, 3, 3, 4, 6], c.site.conflicts()
    for mount in (a, b, c):
        mount.site.fsck()


@pytest.mark.limit(400)
@pytest.mark.parametrize("lost, again", [(60, 20), (20, 60)], ids=["fewer", "more"])
def test_rolled_back_site_comes_back(three, lost, again):
    """An old copy is put in its place, and used before anybody notices: its new operations have the
    numbers of others, which all the rest knows. Fewer than were lost, or more, which only their
    stamps tell."""
    world, a, b, c = three
    a.write("common", "at first")
    a.write("lost and found", "at first")
    lib.converge(a, b, c)
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    c.stop()
    c.site.stop()
    copy = c.site.dir + ".copy"
    shutil.copytree(c.site.dir, copy, symlinks=True, ignore=lambda *_: ["sock", "lock", "mnt"])
    c.site.serve()
    c.start()
    c.site.cli("peer", "resume", "a")
    c.site.cli("peer", "resume", "b")
    c.write("lost and found", "edited after the copy was made")
    for n in range(lost):
        c.write(f"after the copy {n}", f"first {n}")
    lib.converge(a, b, c)
    c.stop()
    c.site.stop()
    for name in os.listdir(c.site.dir):
        path = os.path.join(c.site.dir, name)
        if name != "mnt":
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    shutil.copytree(copy, c.site.dir, symlinks=True, dirs_exist_ok=True)
    c.site.serve()
    c.start()
    c.write("common", "edited in the old copy")
    c.write("lost and found", "edited in the old copy, too")
    for n in range(again):
        c.write(f"in the old copy {n}", f"second {n}")
    c.write("after the copy 3", "another third")
    c.site.cli("peer", "resume", "a")
    c.site.cli("peer", "resume", "b")
    eventually(lambda: c.site.status()["wan_state"] == "rolled_back", 60, "it is noticed")
    assert "claudefs site return" in c.site.status()["wan_error"]
    c.stop()
    bring_back(c)
    c.start()
    lib.converge(a, b, c)
    for mount in (a, b, c):
        assert mount.text("common") == "edited in the old copy"
        assert mount.text("lost and found") == "edited after the copy was made"
        assert all(mount.text(f"after the copy {n}") == f"first {n}" for n in range(lost))
        assert all(mount.text(f"in the old copy {n}") == f"second {n}" for n in range(again))
        names = os.listdir(mount / ".")
        beside = sorted(n for n in names if ".conflict-c-" in n)
        assert [n.split(".")[0] for n in beside] == ["after the copy 3", "lost and found"], names
        assert [mount.text(n) for n in beside] == ["another third", "edited in the old copy, too"]
        mount.site.fsck()
    assert sorted(r["rule"] for r in c.site.conflicts()) == [2, 6]


@pytest.mark.limit(300)
def test_mounts_outlast_it(three):
    """Calls wait or say that a file is stale; no mount hangs, and all see the new tree."""
    world, a, b, c = three
    a.write("known", "to all")
    lib.converge(a, b, c)
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    c.write("new", "of c")
    a.write("while away", "of a")
    lib.converge(a, b)
    give_up(world, c, a, b)
    with open(c / "new", "r+b", buffering=0) as new, open(c / "known", "rb") as known:
        bring_back(c)
        eventually(lambda: os.path.exists(c / "while away"), 30, "the mount shows the new tree")
        assert c.text("while away") == "of a" and c.text("new") == "of c"
        assert known.read() == b"to all"
        try:
            new.write(b"more")
            os.fsync(new.fileno())
        except OSError as e:
            assert e.errno in (errno.ESTALE, errno.EIO)
    c.write("new", "of c again")
    lib.converge(a, b, c)
    assert a.text("new") == "of c again"


@pytest.mark.limit(400)
def test_given_up_again_on_its_way(three):
    """Before it has the others' tree: it begins again, with what it had listed the first time."""
    world, a, b, c = three
    c.site.cli("peer", "pause", "a")
    c.site.cli("peer", "pause", "b")
    c.write("of c", "while away")
    give_up(world, c, a, b)
    c.stop()
    first = c.site.json("site", "return", "--no-wait")
    eventually(lambda: "return_collected" in c.site.log(), 30, "the list is made")
    c.site.kill()
    for mount in (a, b):
        eventually(lambda m=mount: [p["state"] for p in m.site.status()["peers"]
                                    if p["site_id"] == first["after_id"]] == ["removed"], 90,
                   "given up again")
    c.site.serve()
    if c.site.status()["joining"]:
        eventually(lambda: "claudefs site return" in c.site.status()["wan_error"], 60, "it knows")
    else:  # it was faster than the kill
        eventually(lambda: c.site.status()["wan_state"] == "removed", 60, "it knows")
    second = c.site.json("site", "return")
    assert second["after_id"] != first["after_id"]
    eventually(lambda: is_back(c), 60, "it is back")
    c.start()
    lib.converge(a, b, c)
    assert a.text("of c") == b.text("of c") == c.text("of c") == "while away"
    for mount in (a, b, c):
        mount.site.fsck()


@pytest.mark.limit(400)
def test_removed_by_an_operator_comes_back_when_one_lets_it(three):
    """Not by itself: its directory may be in wrong hands. With its work, when it may."""
    _, a, b, c = three
    work_apart(a, b, c)
    refused = a.site.cli("peer", "readmit", "c", check=False)
    assert refused.returncode != 0 and "is a member" in refused.stderr
    a.site.cli("peer", "remove", "c")
    eventually(lambda: state_at(b, "c") in ("removed", "leaving"), 60, "b knows")
    c.site.cli("peer", "resume", "a")
    c.site.cli("peer", "resume", "b")
    eventually(lambda: c.site.status()["wan_state"] == "removed", 60, "c knows")
    assert "claudefs peer readmit" in c.site.status()["wan_error"]
    assert c.text("new/deep/er/file") == "made at c"
    c.write("both", "c's of both")  # its users go on
    c.stop()
    refused = c.site.cli("site", "return", check=False)
    assert refused.returncode != 0 and "claudefs peer readmit" in refused.stderr, refused.stderr
    assert c.site.status()["returning"] is None
    b.site.cli("peer", "readmit", "c")
    b.site.cli("peer", "readmit", "c")  # and again, to no effect
    bring_back(c)
    c.start()
    lib.converge(a, b, c)
    for mount in (a, b, c):
        check_nothing_lost(mount)
        mount.site.fsck()
    c.write("afterwards", "x")
    lib.converge(a, b, c)


def test_a_member_in_good_order_does_not_return(three):
    world, a, b, c = three
    done = c.site.cli("site", "return", check=False)
    assert done.returncode != 0 and "good order" in done.stderr
    assert c.site.status()["returning"] is None
