"""Three sites in a line: a - b - c, no link between a and c. Then a fourth comes late."""

import errno
import os
import threading

import pytest

import lib
from lib import eventually
from test_large import bytes_of, elsewhere
from test_partition import run_random_work


@pytest.fixture
def line(world):
    # Only b listens: a and c have no way to reach each other.
    b = world.site("b")
    a, c = world.site("a", listens=False), world.site("c", listens=False)
    world.pair(b, a)
    world.pair(b, c)
    return world, a.mount(), b.mount(), c.mount()


@pytest.mark.limit(300)
def test_changes_pass_through_the_middle(line):
    world, a, b, c = line
    a.write("from-a", "a" * 100000)
    eventually(lambda: os.path.exists(c / "from-a") and c.read("from-a") == b"a" * 100000, 60,
               "a's file with its content at c")
    c.write("from-c", "c")
    eventually(lambda: os.path.exists(a / "from-c") and a.text("from-c") == "c", 60, "c's file at a")
    lib.converge(a, b, c)
    assert set(b.site.peers()) == {"a", "c"}
    assert set(a.site.peers()) == {"b", "c"}, "pairing with one joins all"


@pytest.mark.limit(400)
def test_late_fourth_site_ends_equal(line):
    world, a, b, c = line
    for mount, name in ((a, "a"), (b, "b"), (c, "c")):
        run_random_work(mount, world.random, name, 80)
    late = world.site("late", listens=False)
    world.pair(b.site, late)
    d = late.mount()
    run_random_work(d, world.random, "d", 80)
    run_random_work(a, world.random, "a2", 40)
    lib.converge(a, b, c, d)
    lib.converge(a, b, c, d)
    for mount in (a, b, c, d):
        mount.site.fsck()


@pytest.mark.limit(400)
def test_three_way_conflict(line):
    world, a, b, c = line
    a.write("f", "base")
    lib.converge(a, b, c)
    world.cut("stall")
    for mount, who in ((a, "a"), (b, "b"), (c, "c")):
        mount.write("f", f"by {who}")
        mount.write(f"new-{who}", who)
    world.heal()
    lib.converge(a, b, c)
    lib.converge(a, b, c)
    contents = sorted(a.text(n) for n in a.names() if n.startswith("f"))
    assert contents == ["by a", "by b", "by c"], a.names()


LARGE = 40 << 20  # no site fetches so much before it is read


@pytest.mark.limit(300)
def test_large_content_comes_through_the_middle(line):
    world, a, b, c = line
    data = os.urandom(LARGE)
    a.write("large", data, sync=True)
    lib.converge(a, b, c, trees=False)
    assert elsewhere(b.site) > 0 and elsewhere(c.site) > 0, "only a has it"
    assert c.read("large") == data
    a.site.kill()
    assert elsewhere(b.site) == 0, "b keeps what it has passed on"
    assert b.read("large") == data
    back = os.urandom(LARGE)
    c.write("back", back, sync=True)
    a.site.serve()
    lib.converge(a, b, c, trees=False)
    assert a.read("back") == back
    for mount in (a, b, c):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_pinned_content_comes_through_the_middle(line):
    world, a, b, c = line
    os.mkdir(a / "pinned")
    os.setxattr(a / "pinned", "user.claudefs.policy", b"pinned")
    lib.converge(a, b, c)
    data = os.urandom(LARGE)
    a.write("pinned/large", data, sync=True)
    lib.converge(a, b, c, trees=False)
    eventually(lambda: elsewhere(c.site) == 0, 60, "it comes to c by itself")
    world.cut("reset")
    assert c.read("pinned/large") == data


@pytest.mark.limit(300)
def test_large_content_while_its_site_is_away(line):
    world, a, b, c = line
    data = os.urandom(LARGE)
    a.write("large", data, sync=True)
    lib.converge(a, b, c, trees=False)
    a.site.kill()
    with pytest.raises(OSError) as e:
        c.read("large")
    assert e.value.errno == errno.EHOSTUNREACH
    a.site.serve()
    eventually(lambda: c.read("large") == data, 60, "c reads it when a is back")


@pytest.mark.limit(300)
def test_large_content_while_the_middle_goes(line):
    world, a, b, c = line
    data = os.urandom(LARGE)
    a.write("large", data, sync=True)
    lib.converge(a, b, c, trees=False)
    b.site.link.set_bandwidth(8 << 20)
    result, had = [], bytes_of(c.site)

    def read():
        try:
            result.append(c.read("large"))
        except OSError as e:
            result.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: bytes_of(c.site) > had + LARGE // 8, 60, "a part of it is at c")
    b.site.kill()
    reader.join()
    assert getattr(result[0], "errno", 0) == errno.EHOSTUNREACH, "b went before all had come"
    b.site.link.set_bandwidth(None)
    b.site.serve()
    eventually(lambda: c.read("large") == data, 60, "c reads it when b is back")
    lib.converge(a, b, c, trees=False)
    for mount in (a, b, c):
        mount.site.fsck()


@pytest.mark.limit(300)
def test_removed_site_is_left_out(line):
    world, a, b, c = line
    lib.converge(a, b, c)
    b.site.cli("peer", "remove", "c")
    eventually(lambda: "c" not in {n for n, p in a.site.peers().items()
                                   if p.get("state") != "removed"}, 60, "c is gone at a")
    a.write("after", "x")
    eventually(lambda: os.path.exists(b / "after"), 60, "a and b go on")
    lib.holds(lambda: not os.path.exists(c / "after"), 1, "c gets nothing any more")
