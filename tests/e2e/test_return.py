"""A site that is away for longer than journals are kept is given up; and comes back with its work."""

import os

import pytest

import lib
from lib import eventually

AGE_S = 10


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
    left = eventually(lambda: a.site.peers()["c"]["resync_in_seconds"], 20, "it runs out")
    assert 0 < left <= AGE_S
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
