"""The link is cut; both sites work on. Every pair of rules 2 to 9 that does not go together, with
what has to come out of it at both sites when the link is back."""

import os
import re
import shutil
import stat
import time

import pytest

import conftest
import lib

CONFLICT = r"\.conflict-(alpha|beta)-[0-9a-f]{8}(-\d+)?"


def tick():
    """Lets the clock move on, so that what comes next has the higher stamp."""
    start = time.time_ns()
    while time.time_ns() - start < 20_000_000:
        pass


class Folder:
    """The case's own directory, as one site sees it."""

    def __init__(self, mount, name):
        self.path = os.path.join(mount.path, name)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def write(self, name, text):
        with open(self / name, "w", encoding="ascii") as f:
            f.write(text)

    def read(self, name):
        with open(self / name, encoding="ascii") as f:
            return f.read()

    def names(self, where="."):
        return sorted(os.listdir(self / where))

    def split(self, where="."):
        """(plain names, conflict names with the mark taken out: (name, site))"""
        plain, derived = [], []
        for name in self.names(where):
            mark = re.search(CONFLICT, name)
            if mark:
                derived.append((name[:mark.start()] + name[mark.end():], mark.group(1), name))
            else:
                plain.append(name)
        return plain, derived

    def both(self, name, kept, loser, lost):
        """`name` holds `kept`, and the other text is beside it under a conflict name."""
        plain, derived = self.split()
        assert plain == [name], plain
        assert [(d[0], d[1]) for d in derived] == [(name, loser)], derived
        assert self.read(name) == kept
        assert self.read(derived[0][2]) == lost


class Case:
    """before: prepared and in step; alpha, then (later) beta: done apart; after: holds at both."""

    rule = None  # the conflict that is to be listed at one of the sites at least

    def before(self, f):
        pass

    def after(self, f):
        raise NotImplementedError


class TwoEdits(Case):
    rule = 2

    def before(self, f):
        f.write("f.txt", "base")
        os.chmod(f / "f.txt", 0o640)

    def alpha(self, f):
        f.write("f.txt", "by alpha")

    def beta(self, f):
        f.write("f.txt", "by beta")

    def after(self, f):
        f.both("f.txt", "by beta", "alpha", "by alpha")
        assert {stat.S_IMODE(os.stat(f / n).st_mode) for n in f.names()} == {0o640}


class TwoEditsLarge(TwoEdits):
    def before(self, f):
        f.write("f.txt", "base" * 50000)
        os.chmod(f / "f.txt", 0o640)

    def alpha(self, f):
        with open(f / "f.txt", "r+", encoding="ascii") as out:
            out.write("ALPHA")

    def beta(self, f):
        with open(f / "f.txt", "r+", encoding="ascii") as out:
            out.seek(150000)
            out.write("BETA")

    def after(self, f):
        old = "base" * 50000
        f.both("f.txt", old[:150000] + "BETA" + old[150004:], "alpha", "ALPHA" + old[5:])


class TwoEqualEdits(Case):
    def before(self, f):
        f.write("f.txt", "base")

    def alpha(self, f):
        f.write("f.txt", "same")

    beta = alpha

    def after(self, f):
        assert f.names() == ["f.txt"] and f.read("f.txt") == "same"


class DeleteThenEdit(Case):
    rule = 3

    def before(self, f):
        f.write("f", "base")

    def alpha(self, f):
        os.unlink(f / "f")

    def beta(self, f):
        f.write("f", "edited")

    def after(self, f):
        assert f.names() == ["f"] and f.read("f") == "edited"


class EditThenDelete(DeleteThenEdit):
    def alpha(self, f):
        f.write("f", "edited")

    def beta(self, f):
        os.unlink(f / "f")


class ReplaceThenEdit(Case):
    """An editor that saves by rename at one site, one that writes in place at the other: the
    removal of the old file by the rename knew nothing of the write."""

    rule = 3

    def before(self, f):
        f.write("doc", "base")

    def alpha(self, f):
        f.write("tmp", "replaced")
        os.rename(f / "tmp", f / "doc")

    def beta(self, f):
        f.write("doc", "edited")

    def after(self, f):
        contents = sorted(f.read(n) for n in f.names())
        assert contents == ["edited", "replaced"], (f.names(), contents)


class RemoveOneOfTwoLinks(Case):
    def before(self, f):
        f.write("x", "base")
        os.link(f / "x", f / "y")

    def alpha(self, f):
        os.unlink(f / "x")

    def beta(self, f):
        f.write("y", "edited")

    def after(self, f):
        assert f.names() == ["y"] and f.read("y") == "edited"
        assert os.stat(f / "y").st_nlink == 1


class RmdirAgainstCreate(Case):
    """A directory is removed where it is empty; the other site has put something in."""

    rule = 4
    inside, content = "new", "d/new"

    def before(self, f):
        os.mkdir(f / "d")

    def alpha(self, f):
        os.rmdir(f / "d")

    def beta(self, f):
        f.write("d/new", "content")

    def after(self, f):
        assert f.names() == ["d"] and f.names("d") == [self.inside]
        assert f.read(self.content) == "content"


class RmdirOfManyAgainstCreate(Case):
    rule = 4

    def before(self, f):
        os.makedirs(f / "a/b/c")
        f.write("a/gone", "x")

    def alpha(self, f):
        f.write("a/b/c/new", "content")

    def beta(self, f):
        shutil.rmtree(f / "a")

    def after(self, f):
        assert f.names() == ["a"] and f.names("a") == ["b"] and f.names("a/b") == ["c"]
        assert f.read("a/b/c/new") == "content"


class RmdirAgainstRenameInto(RmdirAgainstCreate):
    inside, content = "f", "d/f"

    def before(self, f):
        super().before(f)
        f.write("f", "content")

    def beta(self, f):
        os.rename(f / "f", f / "d/f")


class RmdirAgainstDirectoryMovedInto(RmdirAgainstCreate):
    inside, content = "e", "d/e/f"

    def before(self, f):
        super().before(f)
        os.mkdir(f / "e")
        f.write("e/f", "content")

    def beta(self, f):
        os.rename(f / "e", f / "d/e")


class RmdirAgainstLinkInto(RmdirAgainstRenameInto):
    def beta(self, f):
        os.link(f / "f", f / "d/l")

    def after(self, f):
        assert f.names() == ["d", "f"] and f.names("d") == ["l"]
        assert os.path.samefile(f / "f", f / "d/l") and os.stat(f / "f").st_nlink == 2


class RmdirAgainstMkdirInside(RmdirAgainstCreate):
    def alpha(self, f):
        os.mkdir(f / "d/sub")

    def beta(self, f):
        os.rmdir(f / "d")

    def after(self, f):
        assert f.names() == ["d"] and f.names("d") == ["sub"] and f.names("d/sub") == []


class RmdirAgainstMoveAndCreate(RmdirAgainstMkdirInside):
    """What was put in brings the directory back, where its move had taken it."""

    def alpha(self, f):
        os.rename(f / "d", f / "e")
        f.write("e/new", "content")

    def after(self, f):
        assert f.names() == ["e"] and f.names("e") == ["new"] and f.read("e/new") == "content"


class MoveAgainstCreateInside(Case):
    """No conflict: what is made inside is where the directory is."""

    def before(self, f):
        os.mkdir(f / "d")

    def alpha(self, f):
        os.rename(f / "d", f / "e")

    def beta(self, f):
        f.write("d/new", "content")

    def after(self, f):
        assert f.names() == ["e"] and f.read("e/new") == "content"


class MovesIntoEachOther(Case):
    rule = 5

    def before(self, f):
        os.mkdir(f / "a")
        os.mkdir(f / "b")
        f.write("a/fa", "a")
        f.write("b/fb", "b")

    def alpha(self, f):
        os.rename(f / "a", f / "b/a")

    def beta(self, f):
        os.rename(f / "b", f / "a/b")

    def after(self, f):
        assert f.names() == ["b"] and f.names("b") == ["a", "fb"] and f.names("b/a") == ["fa"]


class MovesToTwoPlaces(Case):
    rule = 5

    def before(self, f):
        os.makedirs(f / "d")
        f.write("d/f", "content")
        os.mkdir(f / "x")
        os.mkdir(f / "y")

    def alpha(self, f):
        os.rename(f / "d", f / "x/d")

    def beta(self, f):
        os.rename(f / "d", f / "y/d")

    def after(self, f):
        assert f.names() == ["x", "y"] and f.names("x") == [] and f.names("y") == ["d"]
        assert f.read("y/d/f") == "content"


class SameNameTwoFiles(Case):
    rule = 6

    def alpha(self, f):
        f.write("new.tar.gz", "by alpha")

    def beta(self, f):
        f.write("new.tar.gz", "by beta")

    def after(self, f):
        f.both("new.tar.gz", "by beta", "alpha", "by alpha")


class SameNameTwins(Case):
    def alpha(self, f):
        f.write("twin", "same bytes")

    beta = alpha

    def after(self, f):
        assert f.names() == ["twin"] and f.read("twin") == "same bytes"
        assert os.stat(f / "twin").st_nlink == 1


class SameNameDirectoryAndFile(Case):
    rule = 6

    def alpha(self, f):
        os.mkdir(f / "thing")
        f.write("thing/inside", "x")

    def beta(self, f):
        f.write("thing", "a file")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["thing"] and f.names("thing") == ["inside"]
        assert [d[:2] for d in derived] == [("thing", "beta")]
        assert f.read(derived[0][2]) == "a file"


class SameNameSymlinks(Case):
    rule = 6

    def alpha(self, f):
        os.symlink("to-alpha", f / "link")

    def beta(self, f):
        os.symlink("to-beta", f / "link")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["link"] and len(derived) == 1
        assert os.readlink(f / "link") == "to-beta"
        assert os.readlink(f / derived[0][2]) == "to-alpha"


class RenameOntoCreated(Case):
    rule = 6

    def before(self, f):
        f.write("f", "moved")

    def alpha(self, f):
        os.rename(f / "f", f / "g")

    def beta(self, f):
        f.write("g", "created")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["g"] and f.read("g") == "created"
        assert [d[0] for d in derived] == ["g"] and f.read(derived[0][2]) == "moved"


class TwoDirectoriesMovedToOneName(Case):
    rule = 6

    def before(self, f):
        os.mkdir(f / "p")
        os.mkdir(f / "q")
        f.write("p/fp", "p")
        f.write("q/fq", "q")

    def alpha(self, f):
        os.rename(f / "p", f / "z")

    def beta(self, f):
        os.rename(f / "q", f / "z")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["z"] and f.names("z") == ["fq"]
        assert [d[0] for d in derived] == ["z"] and f.names(derived[0][2]) == ["fp"]


class DirectoryMovedToCreatedName(Case):
    rule = 6

    def before(self, f):
        os.mkdir(f / "p")
        f.write("p/fp", "p")

    def alpha(self, f):
        os.rename(f / "p", f / "z")

    def beta(self, f):
        os.mkdir(f / "z", 0o700)
        f.write("z/fz", "z")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["z"] and [d[0] for d in derived] == ["z"]
        assert {tuple(f.names(n)) for n in ("z", derived[0][2])} == {("fp",), ("fz",)}


class LongNames(Case):
    rule = 6

    def alpha(self, f):
        f.write("n" * 251 + ".txt", "by alpha")

    def beta(self, f):
        f.write("n" * 251 + ".txt", "by beta")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["n" * 251 + ".txt"] and len(derived) == 1
        assert len(derived[0][2]) == 255 and derived[0][2].endswith(".txt")
        assert f.read(derived[0][2]) == "by alpha"


class SaveByRenameTwice(Case):
    rule = 6

    def before(self, f):
        f.write("doc", "base")

    def alpha(self, f):
        f.write("tmp-a", "by alpha")
        os.rename(f / "tmp-a", f / "doc")

    def beta(self, f):
        f.write("tmp-b", "by beta")
        os.rename(f / "tmp-b", f / "doc")

    def after(self, f):
        f.both("doc", "by beta", "alpha", "by alpha")


class SameMkdir(Case):
    def alpha(self, f):
        os.makedirs(f / "d/sub")
        f.write("d/from-alpha", "a")
        f.write("d/sub/a", "a")

    def beta(self, f):
        os.makedirs(f / "d/sub")
        f.write("d/from-beta", "b")
        f.write("d/sub/b", "b")

    def after(self, f):
        assert f.names() == ["d"]
        assert f.names("d") == ["from-alpha", "from-beta", "sub"] and f.names("d/sub") == ["a", "b"]


class MkdirOtherMode(Case):
    rule = 6

    def alpha(self, f):
        os.mkdir(f / "d", 0o755)
        f.write("d/a", "a")

    def beta(self, f):
        os.mkdir(f / "d", 0o700)
        f.write("d/b", "b")

    def after(self, f):
        plain, derived = f.split()
        assert plain == ["d"] and [d[:2] for d in derived] == [("d", "alpha")]
        assert f.names("d") == ["b"] and f.names(derived[0][2]) == ["a"]


class TwoRenames(Case):
    rule = 8

    def before(self, f):
        f.write("f", "content")

    def alpha(self, f):
        os.rename(f / "f", f / "by-alpha")

    def beta(self, f):
        os.rename(f / "f", f / "by-beta")

    def after(self, f):
        assert f.names() == ["by-alpha", "by-beta"]
        a, b = os.stat(f / "by-alpha"), os.stat(f / "by-beta")
        assert a.st_ino == b.st_ino and a.st_nlink == b.st_nlink == 2
        assert f.read("by-alpha") == "content"


class UnlinkAgainstRename(Case):
    """No conflict: the removal knew the old name only (rule 1)."""

    def before(self, f):
        f.write("f", "content")

    def alpha(self, f):
        os.unlink(f / "f")

    def beta(self, f):
        os.rename(f / "f", f / "g")

    def after(self, f):
        assert f.names() == ["g"] and f.read("g") == "content"


class UnlinkAgainstLink(UnlinkAgainstRename):
    def beta(self, f):
        os.link(f / "f", f / "g")


class RenameAgainstEdit(Case):
    """No conflict: the edit follows the file to its new name."""

    def before(self, f):
        f.write("f", "base")

    def alpha(self, f):
        os.rename(f / "f", f / "g")

    def beta(self, f):
        f.write("f", "edited")

    def after(self, f):
        assert f.names() == ["g"] and f.read("g") == "edited"


class Attributes(Case):
    """Rule 9: rights are one register, the later change holds; others are on their own."""

    def before(self, f):
        f.write("f", "x")
        os.chmod(f / "f", 0o644)

    def alpha(self, f):
        os.chmod(f / "f", 0o600)
        os.setxattr(f / "f", "user.a", b"alpha")
        os.utime(f / "f", ns=(10**18, 10**18))

    def beta(self, f):
        os.chmod(f / "f", 0o666)
        os.setxattr(f / "f", "user.b", b"beta")

    def after(self, f):
        st = os.stat(f / "f")
        assert stat.S_IMODE(st.st_mode) == 0o666 and st.st_mtime_ns == 10**18
        assert os.getxattr(f / "f", "user.a") == b"alpha"
        assert os.getxattr(f / "f", "user.b") == b"beta"


CASES = {c.__name__: c() for c in (
    TwoEdits, TwoEditsLarge, TwoEqualEdits, DeleteThenEdit, EditThenDelete, ReplaceThenEdit,
    RemoveOneOfTwoLinks, RmdirAgainstCreate, RmdirOfManyAgainstCreate, RmdirAgainstRenameInto,
    RmdirAgainstDirectoryMovedInto, RmdirAgainstLinkInto, DirectoryMovedToCreatedName,
    RmdirAgainstMkdirInside, RmdirAgainstMoveAndCreate, MoveAgainstCreateInside, MovesIntoEachOther,
    MovesToTwoPlaces, SameNameTwoFiles, SameNameTwins, SameNameDirectoryAndFile, SameNameSymlinks,
    RenameOntoCreated, TwoDirectoriesMovedToOneName, LongNames, SaveByRenameTwice, SameMkdir,
    MkdirOtherMode, TwoRenames, UnlinkAgainstRename, UnlinkAgainstLink, RenameAgainstEdit,
    Attributes)}


@pytest.fixture(scope="module", params=["stall", "reset"])
def healed(request):
    """All cases in one partition: (world, mount at alpha, mount at beta), in step again."""
    with conftest.world_of(request.node, 600) as world:
        alpha, beta = world.two()
        a, b = alpha.mount(), beta.mount()
        for name, case in CASES.items():
            os.mkdir(a / name)
            case.before(Folder(a, name))
        lib.converge(a, b)
        world.cut(request.param)
        for name, case in CASES.items():
            case.alpha(Folder(a, name))
        tick()
        for name, case in CASES.items():
            case.beta(Folder(b, name))
        world.heal()
        lib.converge(a, b)
        yield world, a, b


@pytest.mark.parametrize("name", CASES)
def test_conflicting_pair(healed, name):
    world, a, b = healed
    case = CASES[name]
    for mount in (a, b):
        case.after(Folder(mount, name))
    for site in (a.site, b.site):  # whoever looks sees it where he is
        found = [c for c in site.conflicts(resolved=True)
                 if f"{c['path']}/".startswith(f"/{name}/")]
        if case.rule:
            assert case.rule in {c["rule"] for c in found}, \
                f"{site.name} does not list rule {case.rule}: {found}"
        else:
            open_ = [c for c in found if not c["resolved"]]
            assert not open_, f"{site.name} lists without need: {open_}"


def test_trees_are_equal_and_clean(healed):
    world, a, b = healed
    lib.converge(a, b)
    for site in (a.site, b.site):
        site.fsck()


def test_conflict_is_explained_and_resolved(healed):
    world, a, b = healed
    site = next(s for s in (a.site, b.site) if any(c["path"].startswith("/SameNameTwoFiles/")
                                                   for c in s.conflicts(resolved=True)))
    listed = next(c for c in site.conflicts() if c["path"].startswith("/SameNameTwoFiles/"))
    shown = site.cli("conflicts", "show", listed["id"]).stdout
    assert "new.tar.gz" in shown and "alpha" in shown and "beta" in shown
    site.cli("conflicts", "resolve", listed["id"], "--keep", "both")
    assert listed["id"] not in [c["id"] for c in site.conflicts()]
    assert listed["id"] in [c["id"] for c in site.conflicts(resolved=True)]


@pytest.mark.parametrize("keep", ["mine", "theirs"])
def test_resolving_keeps_one_side(two, keep):
    world, a, b = two
    world.cut("reset")
    a.write("f", "by alpha")
    tick()
    b.write("f", "by beta")
    world.heal()
    lib.converge(a, b)
    site = next(s for s in (a.site, b.site) if s.conflicts())
    conflict = site.conflicts()[0]
    site.cli("conflicts", "resolve", conflict["id"], "--keep", keep)
    lib.converge(a, b)
    assert a.names() == ["f"], a.names()
    mine, theirs = (("alpha", "beta") if site is a.site else ("beta", "alpha"))
    assert a.text("f") == "by " + (mine if keep == "mine" else theirs)


@pytest.mark.limit(400)
@pytest.mark.parametrize("how", ["stall", "reset"])
def test_both_sites_work_on_while_apart(two, how):
    world, a, b = two
    run_random_work(a, world.random, "before", 100)
    lib.converge(a, b)
    world.cut(how)
    run_random_work(a, world.random, "a", 300)
    run_random_work(b, world.random, "b", 300)
    world.heal()
    lib.converge(a, b)
    for site in (a.site, b.site):
        site.fsck()


@pytest.mark.limit(400)
def test_flapping_and_damaged_link(two):
    world, a, b = two
    for link in world.links:
        link.set_latency(0.01)
        link.set_random_resets(1.5)
        link.set_damage(300_000)
    for n in range(6):
        run_random_work(a, world.random, f"a{n}", 50)
        run_random_work(b, world.random, f"b{n}", 50)
        a.write(f"large{n}", os.urandom(400_000))
    for link in world.links:
        link.set_random_resets(None)
        link.set_damage(None)
        link.set_latency(0)
        link.reset()
    lib.converge(a, b, timeout=120)
    for site in (a.site, b.site):
        assert site.alive()
        site.fsck()


@pytest.mark.limit(400)
def test_link_that_loses_packets(two):
    """All comes through while they are lost: late, whole and once."""
    world, a, b = two
    for link in world.links:
        link.set_latency(0.005)
        link.set_loss(2)
    run_random_work(a, world.random, "a", 100)
    run_random_work(b, world.random, "b", 100)
    texts = {name: os.urandom(700_000) for name in ("large1", "large2")}
    for name, text in texts.items():
        (a if name == "large1" else b).write(name, text)
    lib.converge(a, b, timeout=120)
    for mount in (a, b):
        for name, text in texts.items():
            with open(mount / name, "rb") as f:
                assert f.read() == text
    for way in ("to", "from"):
        assert sum(link.stats()[way]["packets_lost"] for link in world.links) > 0
    for link in world.links:
        link.set_loss(None)
        link.set_latency(0)
    lib.converge(a, b)
    for site in (a.site, b.site):
        assert site.alive()
        site.fsck()


def run_random_work(mount, random, prefix, steps):
    """Creates, writes, moves and removes; some of it on names that both sites use."""
    for step in range(steps):
        shared = random.random() < 0.3
        name = f"{'shared' if shared else prefix}{random.randrange(12)}"
        folder = f"dir{random.randrange(4)}" if shared else f"{prefix}-dir{random.randrange(4)}"
        path = mount / os.path.join(folder, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            what = random.random()
            if what < 0.5:
                with open(path, "wb") as f:
                    f.write(os.urandom(random.choice((10, 5000, 40000))))
            elif what < 0.6:
                os.rename(path, path + "-moved")
            elif what < 0.7:
                os.unlink(path)
            elif what < 0.75:
                os.link(path, path + f"-link{step}")
            elif what < 0.8:
                os.chmod(path, random.choice((0o600, 0o644, 0o755)))
            elif what < 0.85:
                os.mkdir(path + ".d")
            elif what < 0.9:
                os.rename(os.path.dirname(path), mount / f"dir{random.randrange(4)}/sub{step}")
            else:
                os.symlink(name, path + f"-symlink{step}")
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            pass  # what it wanted is not there, or is: as with any two programs
        except OSError as e:
            if e.errno not in (22, 39):  # into itself, not empty
                raise
