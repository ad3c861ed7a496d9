"""Real trees and real programs: what people would do on the first day."""

import os
import shutil
import sqlite3

import pytest

import lib
from lib import run


def copied(mount, source, name):
    run("cp", "-a", source, mount / name, timeout=900)


@pytest.mark.limit(900)
@pytest.mark.parametrize("source", ["/usr/include", "/usr/share/doc"])
def test_copy_of_a_system_tree(two, source):
    world, a, b = two
    if not os.path.isdir(source):
        pytest.skip(f"no {source} on this machine")
    copied(a, source, "copy")
    a.site.wait(600)
    b.site.wait(600)
    # Links out of the tree count at the source, and its attributes may be of other file systems.
    wanted = lib.tree(source, ignore=("xattrs", "nlink", "same as"))
    at_beta = lib.tree(b / "copy")
    assert not lib.differences(lib.tree(a / "copy"), at_beta, ("alpha", "beta"))[:20]
    for said in at_beta.values():
        said.pop("xattrs")
        said.pop("nlink")
        said.pop("same as", None)
    assert not lib.differences(wanted, at_beta, (source, "beta"))[:20]


@pytest.mark.limit(600)
def test_copy_and_removal_of_a_tree(two):
    world, a, b = two
    copied(a, "/usr/include/linux", "linux")
    a.site.wait()
    shutil.rmtree(b / "linux")
    b.site.wait()
    lib.eventually(lambda: a.names() == [], 30, "the tree removed at beta is gone at alpha")
    lib.converge(a, b)


# What a Debian source package is built from, when the archive's sources cannot be fetched: the same
# steps (unpack, configure, make, run its checks) on a tree with sub-directories and a library.
MAKEFILE = """\
all: prog
lib/libgreet.a: lib/greet.o
\tar rcs $@ $^
%.o: %.c include/greet.h
\t$(CC) -Iinclude -O1 -c -o $@ $<
prog: main.o lib/libgreet.a
\t$(CC) -o $@ main.o lib/libgreet.a
check: prog
\ttest "$$(./prog)" = "hello, world"
clean:
\trm -f prog *.o lib/*.o lib/*.a
"""


def debian_source(folder, package):
    """Fetches and returns the .dsc of a source package, or None where that is not possible."""
    lists = os.path.join(folder, "lists")
    os.makedirs(os.path.join(lists, "partial"))
    sources = os.path.join(folder, "sources.list")
    with open(sources, "w", encoding="ascii") as f:
        f.write("deb-src http://deb.debian.org/debian bookworm main\n")
    options = ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-",
               "-o", f"Dir::State::lists={lists}", "-o", "Acquire::Retries=1",
               "-o", "Acquire::http::Timeout=20", "-o", "APT::Sandbox::User=root"]
    for command in (["update"], ["source", "--download-only", package]):
        done = run("apt-get", "-qq", *options, *command, check=False, timeout=180, cwd=folder)
        if done.returncode != 0:
            print(done.stderr)
            return None
    found = [n for n in os.listdir(folder) if n.endswith(".dsc")]
    return os.path.join(folder, found[0]) if found else None


@pytest.mark.limit(900)
def test_build_of_a_debian_source_package(two, tmp_path):
    world, a, b = two
    dsc = debian_source(str(tmp_path), "hello") if shutil.which("dpkg-source") else None
    if not dsc:
        pytest.skip("the source package cannot be fetched: no dpkg-source or no Debian archive")
    run("dpkg-source", "-x", dsc, a / "hello", timeout=300)
    run("./configure", "--quiet", "--disable-nls", cwd=a / "hello", timeout=600)
    run("make", "-s", cwd=a / "hello", timeout=600)
    assert "Hello" in run("./hello", cwd=a / "hello").stdout
    lib.converge(a, b)
    assert "Hello" in run("./hello", cwd=b / "hello").stdout


@pytest.mark.limit(600)
def test_build_at_one_site_rebuild_at_the_other(two):
    world, a, b = two
    a.write("p/include/greet.h", "const char *greet(void);\n")
    a.write("p/lib/greet.c", '#include "greet.h"\nconst char *greet(void)\n'
                             '{ return "hello, world"; }\n')
    a.write("p/main.c", '#include <stdio.h>\n#include "greet.h"\nint main(void)\n'
                        '{ puts(greet()); return 0; }\n')
    a.write("p/Makefile", MAKEFILE)
    run("make", "check", cwd=a / "p")
    lib.converge(a, b)
    assert run("make", "-q", "all", cwd=b / "p", check=False).returncode == 0, \
        "time stamps are exact: nothing is to be built again"
    run("make", "clean", cwd=b / "p")
    run("make", "check", cwd=b / "p")
    lib.converge(a, b)


@pytest.mark.limit(600)
def test_git_repository_used_at_both_sites(two, tmp_path):
    world, a, b = two
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "safe.directory=*"]

    def git(mount, *args):
        return run("git", *who, "-C", mount / "repo", *args, timeout=300).stdout

    seed = str(tmp_path / "seed")
    run("git", "init", "-q", "-b", "main", seed)
    for n in range(300):
        folder = os.path.join(seed, f"d{n % 17}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{n}"), "w", encoding="ascii") as f:
            f.write(f"{n}\n" * (n + 1))
        if n % 50 == 49:
            run("git", *who, "-C", seed, "add", "-A")
            run("git", *who, "-C", seed, "commit", "-q", "-m", f"up to {n}")
    run("git", *who, "clone", "-q", "--no-local", seed, a / "repo", timeout=300)
    a.site.wait()
    assert git(b, "status", "--porcelain") == ""
    b.write("repo/from-beta", "beta was here\n")
    git(b, "add", "from-beta")
    git(b, "commit", "-q", "-m", "from beta")
    b.site.wait()
    assert "from beta" in git(a, "log", "--oneline")
    assert git(a, "status", "--porcelain") == ""
    git(a, "gc", "-q")
    a.site.wait()
    for mount in (a, b):
        assert "error" not in run("git", *who, "-C", mount / "repo", "fsck", "--full", "--strict",
                                  timeout=300).stderr
    lib.converge(a, b)


@pytest.mark.limit(600)
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_database(two, mode):
    world, a, b = two
    path = a / "data.db"
    db = sqlite3.connect(path)
    assert db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v BLOB)")
    db.execute("CREATE INDEX t_k ON t (k)")
    for n in range(20):
        with db:
            db.executemany("INSERT INTO t (k, v) VALUES (?, ?)",
                           [(f"key {n} {i}", bytes([i % 256]) * (i * 7 % 900)) for i in range(200)])
        with db:
            db.execute("DELETE FROM t WHERE id % 7 = ?", (n % 7,))
    rows = db.execute("SELECT count(*), sum(length(v)) FROM t").fetchone()
    db.close()
    a.site.wait()
    db = sqlite3.connect(b / "data.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*), sum(length(v)) FROM t").fetchone() == rows
    with db:
        db.execute("UPDATE t SET k = k || ' seen at beta'")
    db.close()
    b.site.wait()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*) FROM t WHERE k LIKE '% seen at beta'").fetchone()[0] == rows[0]
    db.close()
    lib.converge(a, b)
