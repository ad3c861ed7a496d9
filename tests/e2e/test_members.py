"""Sites that leave: which of their operations count is decided once, for all who remain, whoever is
away at that moment; what was collected meanwhile is missed by nobody."""

import os
import stat

import pytest

import lib
from lib import eventually
from test_partition import run_random_work


@pytest.fixture
def three(world):
    """All can reach each other."""
    sites = [world.site(name) for name in "abc"]
    world.pair(sites[0], sites[1])
    world.pair(sites[0], sites[2])
    return world, *(s.mount() for s in sites)


def state_at(mount, name):
    return mount.site.peers()[name]["state"]


def removed_everywhere(name, *mounts):
    for mount in mounts:
        eventually(lambda m=mount: state_at(m, name) == "removed", 60,
                   f"{name} is removed at {mount.site.name}")


@pytest.mark.limit(300)
def test_remove_with_all_present(three):
    world, a, b, c = three
    for mount, name in ((a, "a"), (b, "b"), (c, "c")):
        run_random_work(mount, world.random, name, 40)
    lib.converge(a, b, c)
    c.write("of-c", "kept")
    lib.converge(a, b, c)
    a.site.cli("peer", "remove", "c")
    removed_everywhere("c", a, b)
    # It learns it, in words; and goes on as a file system of its own.
    eventually(lambda: c.site.status()["wan_state"] == "removed", 60, "c knows")
    eventually(lambda: "this site was removed from the federation" in c.site.log(), 30, "c says so")
    assert {state_at(c, "a"), state_at(c, "b")} <= {"removed_there", "refused"}
    c.write("alone", "x")
    a.write("after", "x")
    lib.converge(a, b)
    lib.holds(lambda: not os.path.exists(a / "alone") and not os.path.exists(c / "after"), 1,
              "nothing passes any more")
    assert a.text("of-c") == b.text("of-c") == "kept"
    for mount in (a, b, c):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_who_let_a_site_in_is_lost_before_the_others_have_heard_of_it(world):
    """b is away while a works, and lets c in; then a is lost for ever. b has never heard of c, which
    has what a did; it takes a's word for it, and gets all of that from c."""
    sites = [world.site(name) for name in "abc"]
    world.pair(sites[0], sites[1])
    a, b = sites[0].mount(), sites[1].mount()
    lib.converge(a, b)
    b.stop()
    b.site.stop()
    for i in range(20):  # small ones: chunks that nobody has read at c would go with a
        a.write(f"a{i}", str(i))
    os.rename(a / "a0", a / "moved")
    a.write("while b is away", "of a", sync=True)
    world.pair(sites[0], sites[2])
    c = sites[2].mount()
    assert c.text("while b is away") == "of a"
    c.write("of c", "x")
    a.stop()
    a.site.kill()
    b.site.serve()
    b.start()
    eventually(lambda: state_at(c, "b") == "connected", 60, "b knows c")
    eventually(lambda: {"while b is away", "of c"} <= set(b.names()), 60, "it comes from c")
    assert b.text("while b is away") == "of a" and b.text("of c") == "x"
    c.site.restart()
    b.write("later", "x")
    eventually(lambda: "later" in c.names(), 60, "and goes there")
    b.site.cli("peer", "remove", "a")
    removed_everywhere("a", b, c)
    b.write("last", "x")
    lib.converge(b, c)
    for mount in (b, c):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_remove_while_one_is_away(three):
    """b is away when c goes, and hears of it, and of c's last work, afterwards."""
    world, a, b, c = three
    lib.converge(a, b, c)
    b.stop()
    b.site.stop()
    c.write("last", "of c")
    eventually(lambda: os.path.exists(a / "last") and a.text("last") == "of c", 60, "at a")
    a.site.cli("peer", "remove", "c")
    eventually(lambda: state_at(a, "c") == "leaving", 30, "b has not answered")
    lib.holds(lambda: state_at(a, "c") == "leaving", 1, "it waits for b")
    c.write("too late", "x")
    b.site.serve()
    b.start()
    removed_everywhere("c", a, b)
    lib.converge(a, b)
    assert b.text("last") == "of c"
    # b may have had it from c before it heard of the removal; then it counts, at both.
    assert os.path.exists(a / "too late") == os.path.exists(b / "too late")
    # The same name may come again, as a new site.
    again = world.site("again")
    world.pair(a.site, again)
    d = again.mount()
    lib.converge(a, b, d)
    assert d.text("last") == "of c"
    for mount in (a, b, d):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_removed_site_lets_go_of_the_journal(three):
    """Nobody keeps journals for a site that left."""
    _, a, b, c = three
    lib.converge(a, b, c)
    c.stop()
    c.site.stop()
    b.site.cli("peer", "remove", "c")
    removed_everywhere("c", a, b)
    assert all(m["status"] == (2 if m["name"] == "c" else 0) for m in a.site.status()["members"])
    a.write("big", os.urandom(4096))
    lib.converge(a, b)
    a.site.restart()
    b.site.restart()
    assert state_at(a, "c") == "removed" and state_at(b, "c") == "removed"
    lib.converge(a, b)
    assert stat.S_ISREG(os.stat(b / "big").st_mode)
    for mount in (a, b):
        mount.site.fsck()
