"""Conflicts in an operator's hands: both sides shown, one kept, and that taken back."""

import os
import time

import pytest

import lib
from conftest import world_of
from lib import CommandFailed


def lines(count, other={}):
    return "".join(f"{other.get(n, f'line {n}')}\n" for n in range(count))


@pytest.fixture(scope="module")
def apart(request):
    """Two sites that worked on while apart, and met: one conflict in each directory."""
    with world_of(request.node, 300) as world:
        alpha, beta = world.two()
        a, b = alpha.mount(), beta.mount()
        for name in "edited", "kept", "renamed", "deleted":
            a.write(f"{name}/f", "common\nline\n")
        os.mkdir(a / "named")
        os.mkdir(a / "binary")
        a.write("large/f", lines(20_000))
        os.mkdir(a / "huge")
        for name in "filled", "emptied":
            os.makedirs(a / f"gone/{name}")
            os.mkdir(a / f"gone/{name}/d")
        os.makedirs(a / "moved/x")
        os.makedirs(a / "moved/y")
        for name in "dirfile", "filedir":
            os.mkdir(a / name)
        lib.converge(a, b)
        world.cut("reset")
        for mount, who in (a, "alpha"), (b, "beta"):
            mount.write("edited/f", f"common\nby {who}\n")
            mount.write("kept/f", f"common\nkept by {who}\n")
            mount.write("named/new", f"made at {who}\n")
            mount.write("binary/new", who.encode() + b"\0" + os.urandom(20000))
            mount.write("large/f", lines(20_000, {77: who, 15_000: f"late {who}"}))
            mount.write("huge/new", f"{who}\n" * 60_000)
            os.rename(mount / "renamed/f", mount / f"renamed/f-{who}")
            time.sleep(0.01)  # a clear order of the stamps
        os.unlink(a / "deleted/f")
        for name in "filled", "emptied":
            os.rmdir(a / f"gone/{name}/d")
            b.write(f"gone/{name}/d/in", "put in")
        os.rename(a / "moved/x", a / "moved/y/x")
        os.rename(b / "moved/y", b / "moved/x/y")
        os.mkdir(a / "dirfile/new")
        b.write("dirfile/new", "a file")
        a.write("filedir/new", "a file")
        os.mkdir(b / "filedir/new")
        b.write("deleted/f", "still wanted\n")
        world.heal()
        lib.converge(a, b)
        yield world, a, b


def conflict_in(mounts, directory):
    """(mount, conflict) at the site that has it in its log."""
    for mount in mounts:
        for c in mount.site.conflicts():
            if c["path"].startswith(f"/{directory}/"):
                return mount, c
    raise AssertionError(f"no open conflict in {directory}: "
                         f"{[m.site.conflicts(resolved=True) for m in mounts]}")


def is_open(mount, c):
    return c["id"] in [x["id"] for x in mount.site.conflicts()]


@pytest.mark.parametrize("directory", ["edited", "named"])
def test_both_sides_are_shown_with_what_differs(apart, directory):
    world, a, b = apart
    mount, c = conflict_in((a, b), directory)
    shown = mount.site.json("conflicts", "show", c["id"])
    kept, other = shown["sides"]
    assert {kept["site"], other["site"]} == {"alpha", "beta"}
    assert kept["mine"] != other["mine"]
    for side in kept, other:
        assert side["kind"] == "file" and side["time"].startswith("20")
        with open(mount.path + side["path"], encoding="ascii") as f:
            assert f.read() == side["text"]
        assert side["size"] == len(side["text"])
    text = mount.site.cli("conflicts", "show", c["id"]).stdout
    assert "- " + kept["text"].splitlines()[-1] in text
    assert "+ " + other["text"].splitlines()[-1] in text


def test_large_text_is_compared_too(apart):
    """No chunk of it is in the operation; one side's may be at the other site only."""
    world, a, b = apart
    mount, c = conflict_in((a, b), "large")
    shown = mount.site.json("conflicts", "show", c["id"])
    for side in shown["sides"]:
        assert side["size"] == len(side["text"]) > 100_000
        assert side["text"] == mount.text(side["path"][1:])
    text = mount.site.cli("conflicts", "show", c["id"]).stdout
    for sign, who in ("- ", shown["sides"][0]["site"]), ("+ ", shown["sides"][1]["site"]):
        assert f"\n{sign}{who}\n" in text and f"\n{sign}late {who}\n" in text
    assert "\n...\n" in text and len(text) < 5000


def test_text_beyond_the_bound_is_named_so(apart):
    world, a, b = apart
    mount, c = conflict_in((a, b), "huge")
    shown = mount.site.json("conflicts", "show", c["id"])
    assert all(side["size"] > 256 * 1024 and "text" not in side for side in shown["sides"])
    assert "larger than 256 KiB" in mount.site.cli("conflicts", "show", c["id"]).stdout


def test_what_is_no_text_is_not_printed(apart):
    world, a, b = apart
    mount, c = conflict_in((a, b), "binary")
    text = mount.site.cli("conflicts", "show", c["id"]).stdout
    assert "not text" in text and "2000" in text, text


@pytest.mark.parametrize("directory,keep", [("edited", "mine"), ("edited", "theirs"),
                                            ("named", "alpha"), ("named", "beta"),
                                            ("binary", "mine"), ("binary", "theirs")])
def test_one_side_is_kept_and_that_is_taken_back(apart, directory, keep):
    world, a, b = apart
    mount, c = conflict_in((a, b), directory)
    site = mount.site
    before = sorted(mount.read(f"{directory}/{n}") for n in mount.names(directory))
    sides = site.json("conflicts", "show", c["id"])["sides"]
    wanted = next(s for s in sides if keep in (s["site"], "mine" if s["mine"] else "theirs"))
    content = mount.read(wanted["path"][1:])
    name = c["path"].rsplit("/", 1)[1]
    site.cli("conflicts", "resolve", c["id"], "--keep", keep)
    lib.converge(a, b)
    assert mount.names(directory) == [name]
    assert a.read(c["path"][1:]) == b.read(c["path"][1:]) == content
    assert not is_open(mount, c)
    with pytest.raises(CommandFailed) as failed:
        site.cli("conflicts", "resolve", c["id"], "--keep", keep)
    assert "undo" in failed.value.stderr
    site.cli("conflicts", "undo", c["id"])
    lib.converge(a, b)
    after = sorted(mount.read(f"{directory}/{n}") for n in mount.names(directory))
    assert after == before
    assert is_open(mount, c)
    assert site.json("conflicts", "show", c["id"])["resolution"]["undone"]


def test_two_names_of_a_rename_become_one_and_two_again(apart):
    world, a, b = apart
    mount, c = conflict_in((a, b), "renamed")
    assert mount.names("renamed") == ["f-alpha", "f-beta"]
    mount.site.cli("conflicts", "resolve", c["id"], "--keep", "alpha")
    lib.converge(a, b)
    assert mount.names("renamed") == ["f-alpha"]
    mount.site.cli("conflicts", "undo", c["id"])
    lib.converge(a, b)
    assert a.names("renamed") == ["f-alpha", "f-beta"]
    assert os.stat(a / "renamed/f-alpha").st_ino == os.stat(a / "renamed/f-beta").st_ino


def test_the_deleters_side_can_win_after_all(apart):
    world, a, b = apart
    mount, c = conflict_in((a, b), "deleted")
    kept, other = mount.site.json("conflicts", "show", c["id"])["sides"]
    assert (kept["site"], other["site"], other["kind"]) == ("beta", "alpha", "removal")
    mount.site.cli("conflicts", "resolve", c["id"], "--keep", "alpha")
    lib.converge(a, b)
    assert b.names("deleted") == []
    mount.site.cli("conflicts", "undo", c["id"])
    lib.converge(a, b)
    assert a.text("deleted/f") == "still wanted\n"


def refused(mount, c, keep):
    with pytest.raises(CommandFailed) as failed:
        mount.site.cli("conflicts", "resolve", c["id"], "--keep", keep)
    assert is_open(mount, c)
    return failed.value.stderr


def keep_and_undo(apart, mount, c, keep, wanted):
    world, a, b = apart
    directory = os.path.dirname(c["path"])[1:]
    before = mount.names(directory)
    mount.site.cli("conflicts", "resolve", c["id"], "--keep", keep)
    lib.converge(a, b)
    assert a.names(directory) == b.names(directory) == wanted and not is_open(mount, c)
    mount.site.cli("conflicts", "undo", c["id"])
    lib.converge(a, b)
    assert a.names(directory) == before and is_open(mount, c)


def test_a_removed_directory_that_was_filled(apart):
    world, a, b = apart
    mount, c = conflict_in((a, b), "gone/filled")
    content, removal = ("theirs", "mine") if mount is a else ("mine", "theirs")
    why = refused(mount, c, removal)
    assert "/gone/filled/d is a directory with something in it" in why and "--keep both" in why
    keep_and_undo(apart, mount, c, content, ["d"])
    assert a.text("gone/filled/d/in") == "put in"
    mount, c = conflict_in((a, b), "gone/emptied")
    os.chmod(mount / "gone/emptied/d", 0o705)
    os.unlink(mount / "gone/emptied/d/in")
    lib.converge(a, b)
    keep_and_undo(apart, mount, c, removal, [])
    assert os.stat(b / "gone/emptied/d").st_mode & 0o7777 == 0o705


def test_two_moves_that_cannot_both_hold(apart):
    world, a, b = apart
    mount, c = next((m, c) for m in (a, b) for c in m.site.conflicts() if c["rule"] == 5)
    skipped = mount.site.json("conflicts", "show", c["id"])["sides"][1]
    holds, other = ("theirs", "mine") if skipped["mine"] else ("mine", "theirs")
    assert "only one of the two moves can hold" in refused(mount, c, other)
    mount.site.cli("conflicts", "resolve", c["id"], "--keep", holds)
    assert not is_open(mount, c)
    mount.site.cli("conflicts", "undo", c["id"])
    assert is_open(mount, c)


@pytest.mark.parametrize("directory,dir_at", [("dirfile", "alpha"), ("filedir", "beta")])
def test_a_directory_and_a_file_of_one_name(apart, directory, dir_at):
    world, a, b = apart
    mount, c = conflict_in((a, b), directory)
    assert os.path.isdir(mount / f"{directory}/new")
    file_at = "beta" if dir_at == "alpha" else "alpha"
    assert "directory that has the name" in refused(mount, c, file_at)
    keep_and_undo(apart, mount, c, dir_at, ["new"])
    assert os.path.isdir(a / f"{directory}/new")


def test_a_resolution_outlives_a_crash(apart):
    """Last: it kills the daemon right after."""
    world, a, b = apart
    mount, c = conflict_in((a, b), "kept")
    mount.site.cli("conflicts", "resolve", c["id"], "--keep", "both")
    mount.site.kill()
    mount.site.serve()
    assert not is_open(mount, c)
    mount.site.cli("conflicts", "undo", c["id"])
    assert is_open(mount, c)
    with pytest.raises(CommandFailed) as failed:
        mount.site.cli("conflicts", "undo", c["id"])
    assert failed.value.returncode == 1 and "nothing to take back" in failed.value.stderr
    with pytest.raises(CommandFailed) as failed:
        mount.site.cli("conflicts", "resolve", c["id"], "--keep", "gamma")
    assert "name of a site" in failed.value.stderr
