"""What policy wants at a site comes there by itself, whatever happens while it comes: a kill, a lost
link, a late join, a policy that is set afterwards. So a site that is lost takes nothing with it that
was to be at the others. `claudefs wait --contents` says when."""

import hashlib
import json
import os
import shutil
import time

import pytest

import lib

SMALL, SMALL_BYTES, PINNED_BYTES = 50, 300_000, 20 << 20
FETCH_WAITS_S = 10  # for any link (WAN_FETCH_WAIT_NS): what is asked for meanwhile is given up


def elsewhere(site):
    return site.json("fsck", "--quick")["contents"]["elsewhere"]


def awaited(site):
    space = site.status()["space"]
    return (space["awaited_contents"], space["awaited_bytes"]) if space["awaited_known"] else None


def digest(mount, name):
    return hashlib.sha256(mount.read(name)).hexdigest()


def write_all(world, mount):
    """Name -> digest."""
    os.mkdir(mount / "pinned")
    os.setxattr(mount / "pinned", "user.claudefs.policy", b"pinned")
    files = {f"small/{i}": SMALL_BYTES for i in range(SMALL)}
    files["pinned/large"] = PINNED_BYTES
    made = {}
    for name, size in files.items():
        data = world.random.randbytes(size)
        mount.write(name, data, sync=True)
        made[name] = hashlib.sha256(data).hexdigest()
    return made


def comes(site):
    lib.eventually(lambda: elsewhere(site) == 0, 90, f"all contents at {site.name}")


def kill_and_start(_, site):
    site.kill()
    site.serve()


def lose_link(world, _):
    for link in world.links:
        link.reset()
    world.cut("reset")
    time.sleep(FETCH_WAITS_S + 2)
    world.heal()


@pytest.mark.limit(600)
@pytest.mark.parametrize("happens", [kill_and_start, lose_link])
def test_contents_come_after_restart_cut_and_join(two, happens):
    world, a, b = two
    b.stop()
    world.links[0].set_bandwidth(1_000_000)
    made = write_all(world, a)
    lib.eventually(lambda: b.site.json("fsck", "--quick")["names"] >= SMALL + 3, 90, "names at beta")
    assert elsewhere(b.site) > 0
    happens(world, b.site)
    world.links[0].set_bandwidth(None)
    comes(b.site)
    assert awaited(b.site) == (0, 0)
    late = world.site("gamma", listens=False)
    world.pair(a.site, late)
    comes(late)
    world.cut("reset")
    for mount in b.start(), late.mount():
        assert {name: digest(mount, name) for name in made} == made
        mount.site.fsck()
    world.heal()


@pytest.mark.limit(400)
def test_wait_for_contents(two):
    """It says how much is not here when time is up, and returns when all is here."""
    world, a, b = two
    link = world.links[0]
    link.set_bandwidth(500_000)
    made = write_all(world, a)
    b.site.wait(200)
    with pytest.raises(lib.CommandFailed) as failed:
        b.site.cli("wait", "--contents", "--timeout", str(int(5 * lib.SLOW)))
    assert failed.value.returncode == 1, failed.value
    assert "not here" in failed.value.stderr
    contents, size = lib.eventually(lambda: awaited(b.site), 30, "the number of contents awaited")
    assert 0 < contents <= SMALL + 1 and 0 < size <= SMALL * SMALL_BYTES + PINNED_BYTES * 1.2
    link.set_bandwidth(None)
    answer = b.site.json("wait", "--contents", "--timeout", "120")
    assert answer["in_step"] and answer["awaited_contents"] == 0 and answer["awaited_bytes"] == 0
    assert elsewhere(b.site) == 0
    world.cut("reset")
    assert {name: digest(b, name) for name in made} == made
    world.heal()


@pytest.mark.limit(400)
def test_content_that_no_site_has_is_a_problem(two):
    """Its writer has lost it before it came: fsck says so once all have been asked, at both."""
    world, a, b = two
    world.links[0].set_bandwidth(20_000)
    a.write("lost", world.random.randbytes(1 << 20), sync=True)
    a.write("after", "small", sync=True)
    lib.eventually(lambda: os.path.exists(b / "after"), 90, "names at beta")
    assert elsewhere(b.site) > 0
    b.stop()
    a.stop()
    a.site.stop()
    shutil.rmtree(os.path.join(a.site.dir, "chunks"))
    a.site.serve()
    world.links[0].set_bandwidth(None)

    def told(site):
        answer = json.loads(site.cli("fsck", "--json", check=False).stdout)
        return not answer["clean"] and any("/lost: chunk" in line and "no site has it" in line
                                           for line in answer["problems"])
    for site in a.site, b.site:
        lib.eventually(lambda: told(site), 60, f"fsck of {site.name} names it")  # pylint: disable=W0640


@pytest.mark.limit(400)
def test_policy_that_is_set_later_counts(two):
    """For what is there, too; and a file follows the policy of the directory it is moved to."""
    world, a, b = two
    for name in "lazy", "kept":
        os.mkdir(a / name)
        os.setxattr(a / name, "user.claudefs.policy", b"lazy")
    data = {name: world.random.randbytes(400_000) for name in ("lazy/one", "kept/two", "kept/three")}
    for name, content in data.items():
        a.write(name, content, sync=True)
    b.site.cli("wait", "--contents")
    assert elsewhere(b.site) == 3
    os.setxattr(a / "lazy", "user.claudefs.policy", b"pinned")
    os.rename(a / "kept/two", a / "lazy/two")
    lib.converge(a, b, trees=False)
    b.site.cli("wait", "--contents")
    assert elsewhere(b.site) == 1
    world.cut("reset")
    assert b.read("lazy/one") == data["lazy/one"] and b.read("lazy/two") == data["kept/two"]
    world.heal()
