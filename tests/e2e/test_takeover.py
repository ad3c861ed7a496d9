"""A site is lost before it repairs what it owes (rules 2, 3 and 4): another one does it in its place,
30 s later. When the site is back, all is as that one made it, once."""

import os
import time

import pytest

import lib
from test_partition import tick

TAKE_OVER_S = 30  # for the first of the others, by their ids


def operations(site):
    return site.json("journal", "tail", "--count", "1000")["history"]


def is_repair(effect):
    """Of what is done here after the sites have met again, to what the test has made."""
    return effect["effect"] in ("fork", "revive") or \
        effect["effect"] == "enter" and effect["name"] == "removed"


def repairs(site, after_hlc):
    """What was repaired, as the journal of this site has it: [(effect, by whom, when in ms)]."""
    return sorted((e["effect"], o["site"], o["hlc"] >> 16) for o in operations(site)
                  if o["hlc"] > after_hlc for e in o["effects"] if is_repair(e))


def three_by_rank(world):
    """Mounts at three sites that all listen. The first one's id is the lowest: it is the first to
    take over. The last one's is the highest: that it is lost makes nobody wait longer."""
    sites = [world.site(name) for name in ("a", "b", "c")]
    for other in sites[1:]:
        world.pair(sites[0], other)
    return [s.mount() for s in sorted(sites, key=lambda s: s.status()["site"])]


def check_repaired(mount, first, lost):
    """Nothing of either side is gone, and each is there once."""
    plain = [n for n in mount.names() if ".conflict-" not in n]
    beside = [n for n in mount.names() if ".conflict-" in n]
    assert plain == ["edited", "folder", "removed"] and len(beside) == 1, (plain, beside)
    assert beside[0].startswith(f"edited.conflict-{lost}-"), beside
    assert mount.text("edited") == f"by {first}"
    assert mount.text(beside[0]) == f"by {lost}"
    assert mount.text("removed") == "edited elsewhere"
    assert mount.names("folder") == ["new"] and mount.text("folder/new") == "content"


@pytest.mark.limit(300)
def test_repairs_of_a_site_that_is_lost_are_taken_over(world):
    first, second, lost = three_by_rank(world)
    names = first.site.name, lost.site.name
    first.write("edited", "base")
    first.write("removed", "base")
    os.mkdir(first / "folder")
    lib.converge(first, second, lost)

    # Of each pair the work of the site that will be lost is what would be hidden. The two never
    # meet: the first one is away while the other one's work gets to the third.
    world.cut("reset")
    lost.write("edited", f"by {lost.site.name}")
    lost.write("removed", "edited elsewhere")
    lost.write("folder/new", "content")
    tick()
    began_ms = time.time_ns() // 1_000_000
    first.write("edited", f"by {first.site.name}")
    os.unlink(first / "removed")
    os.rmdir(first / "folder")
    last_hlc = max(o["hlc"] for o in operations(first.site))
    first.stop()
    first.site.stop()
    world.heal()
    lib.eventually(lambda: second.read("folder/new") == b"content", 60, "it gets to the third site")
    lib.converge(second, lost)
    lost.stop()
    lost.site.kill()

    first.site.serve()
    first.start()
    first.site.wait()
    second.site.wait()
    assert lost.site.name in {o["site"] for o in operations(first.site) if o["hlc"] >> 16 < began_ms}
    lib.eventually(lambda: len(first.names()) == 4, TAKE_OVER_S + 15, "the repairs are taken over")
    lib.converge(first, second)
    done = repairs(first.site, last_hlc)
    assert [(effect, site) for effect, site, _ in done] == \
        [(effect, first.site.name) for effect in ("enter", "fork", "revive")], done
    assert all(ms >= began_ms + 1000 * TAKE_OVER_S for _, _, ms in done), (began_ms, done)
    for mount in (first, second):
        check_repaired(mount, *names)
        assert {2, 3, 4} <= {c["rule"] for c in mount.site.conflicts()}

    lost.site.serve()
    lost.start()
    lib.converge(first, second, lost)
    for mount in (first, second, lost):
        check_repaired(mount, *names)
        assert repairs(mount.site, last_hlc) == done
        mount.site.fsck()
