"""Looking back and getting back: former versions of files, by path, at every site."""

import os

import pytest

import lib
from conftest import world_of
from lib import CommandFailed, eventually

LARGE = 300000


@pytest.fixture(scope="module")
def pair(request):
    """One pair of sites for all cases; each works in a directory of its own."""
    with world_of(request.node, 300) as world:
        alpha, beta = world.two()
        yield world, alpha.mount(), beta.mount()


def versions(site, path):
    return site.json("journal", "show", path)["versions"]


def states(site, path):
    return [(v["state"], v["size"]) for v in versions(site, path)]


def test_overwritten_at_one_site_is_restored_at_the_other(pair):
    world, a, b = pair
    a.write("over/x", "first")
    lib.converge(a, b)
    b.write("over/x", "second one")
    lib.converge(a, b)
    for site in a.site, b.site:
        found = versions(site, "/over/x")
        assert [(v["state"], v["site"], v["size"]) for v in found] == \
            [("current", "beta", 10), ("replaced", "alpha", 5)]
        assert found[1]["gone_site"] == "beta" and found[1]["path"] == "/over/x"
    b.site.cli("restore", "/over/x", "--version", versions(b.site, "/over/x")[1]["version"])
    lib.converge(a, b)
    assert a.text("over/x") == b.text("over/x") == "first"
    # The mounted file says so at once, also where it was open before: that was b.
    assert states(a.site, "/over/x") == [("current", 5), ("replaced", 10), ("replaced", 5)]


def test_removed_file_comes_back_by_its_path_at_either_site(pair):
    world, a, b = pair
    data = os.urandom(LARGE)
    os.makedirs(a / "gone/deep")
    a.write("gone/deep/small", "precious")
    a.write("gone/deep/large", data)
    os.chmod(a / "gone/deep/small", 0o640)
    lib.converge(a, b)
    os.unlink(a / "gone/deep/small")
    os.unlink(a / "gone/deep/large")
    os.rmdir(a / "gone/deep")
    lib.converge(a, b)
    assert b.names("gone") == []
    assert states(b.site, "/gone/deep/large") == [("removed", LARGE)]
    b.site.cli("restore", "/gone/deep/small")
    a.site.cli("restore", "/gone/deep/large", "--to", "/gone/elsewhere")
    lib.converge(a, b)
    for m in a, b:
        assert m.text("gone/deep/small") == "precious"
        assert os.stat(m / "gone/deep/small").st_mode & 0o7777 == 0o640
        assert m.read("gone/elsewhere") == data


def test_renames_are_followed(pair):
    world, a, b = pair
    a.write("names/one", "1")
    os.rename(a / "names/one", a / "names/two")
    lib.converge(a, b)
    os.makedirs(b / "names/sub")
    os.rename(b / "names/two", b / "names/sub/three")
    b.write("names/sub/three", "22")
    lib.converge(a, b)
    for site in a.site, b.site:
        life = site.json("journal", "show", "/names/sub/three")["history"]
        names = [e.get("path") for op in life for e in op["effects"] if e["effect"] == "enter"]
        assert names == ["/names/one", "/names/two", "/names/sub/three"]
        assert {op["site"] for op in life} == {"alpha", "beta"}
        # What it was called once still leads there.
        assert site.json("journal", "show", "/names/one")["history"]
        assert states(site, "/names/sub/three") == [("current", 2), ("replaced", 1)]
    text = a.site.cli("journal", "show", "/names/sub/three").stdout
    assert "replaced" in text and "versions" in text


def test_saved_by_renaming_over_is_found_by_name(pair):
    world, a, b = pair
    for n, text in enumerate(["draft", "better", "final!"]):
        a.write(f"edit/.tmp{n}", text)
        os.rename(a / f"edit/.tmp{n}", a / "edit/doc")
    lib.converge(a, b)
    assert states(b.site, "/edit/doc") == [("current", 6), ("removed", 6), ("removed", 5)]
    b.site.cli("restore", "/edit/doc", "--version", versions(b.site, "/edit/doc")[2]["version"],
               "--to", "/edit/draft")
    lib.converge(a, b)
    assert a.text("edit/draft") == "draft"
    assert a.text("edit/doc") == "final!"


def test_what_cannot_be_restored_is_said(pair):
    world, a, b = pair
    a.write("no/file", "x")
    for args, why in [(["/no/such"], "nothing is known"),
                      (["/no/file"], "no former version"),
                      (["/no/file", "--version", "7"], "no version"),
                      (["/no/file", "--version", "0:0000abcd:1"], "no such version"),
                      (["no/file"], "inside the file system"),
                      (["/no/../file"], "inside the file system")]:
        with pytest.raises(CommandFailed) as failed:
            a.site.cli("restore", *args)
        assert why in failed.value.stderr, failed.value
        assert failed.value.returncode in (1, 5)
    a.write("no/file", "yy")
    with pytest.raises(CommandFailed) as failed:
        a.site.cli("restore", "/no/file", "--to", "/no/file")
    assert "--to" in failed.value.stderr
    assert a.text("no/file") == "yy"


@pytest.mark.limit(300)
def test_period_travels_and_a_new_site_has_what_was_kept(pair):
    """Last: it restarts daemons, joins a site, and drops all past versions."""
    world, a, b = pair
    data = os.urandom(LARGE)
    a.write("keep/x", data)
    a.write("keep/x", "now")
    os.makedirs(a / "keep/d")
    a.write("keep/d/y", "gone")
    os.unlink(a / "keep/d/y")
    lib.converge(a, b)
    a.site.restart()
    gamma = world.site("gamma", listens=False)
    world.pair(a.site, gamma)
    c = gamma.mount()
    lib.converge(a, b, c)
    for site in a.site, b.site, gamma:
        assert states(site, "/keep/x") == [("current", 3), ("replaced", LARGE)]
    gamma.cli("restore", "/keep/x")
    gamma.cli("restore", "/keep/d/y")
    lib.converge(a, b, c)
    assert a.read("keep/x") == data and b.text("keep/d/y") == "gone"
    assert c.read("keep/x") == data
    kept = eventually(lambda: a.site.status()["versions"]["count"], 30, "versions counted")
    assert kept >= 4 and a.site.status()["versions"]["keep_s"] == 7 * 86400
    assert "keep" in a.site.cli("site", "keep-versions").stdout
    with pytest.raises(CommandFailed) as failed:
        a.site.cli("site", "keep-versions", "soon")
    assert failed.value.returncode == 2
    b.site.cli("site", "keep-versions", "0")
    lib.converge(a, b, c)
    for site in a.site, b.site, gamma:
        assert site.json("site", "keep-versions")["keep_s"] == 0
        eventually(lambda s=site: states(s, "/keep/x") == [("current", LARGE)], 60,
                   f"past versions dropped at {site.name}")
    assert a.read("keep/x") == data
