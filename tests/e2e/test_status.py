"""`status` as people and health checks use it, `wait` on a terminal, and every JSON answer against
docs/json.md."""

import json
import os
import pty
import re
import select
import signal
import time

import pytest

import jsondocs
import lib
from conftest import world_of
from lib import eventually


@pytest.fixture(scope="module")
def pair(request):
    with world_of(request.node, 300) as world:
        alpha, beta = world.two()
        yield world, alpha.mount(), beta.mount()


class Terminal:
    """A command on a pseudo terminal of 100 columns."""

    def __init__(self, site, *args):
        self.text = ""
        pid, self.fd = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
            os.environ.update(lib.environment(), COLUMNS="100")
            os.execv(lib.PROGRAM, [lib.PROGRAM, *args, "--dir", site.dir])
        self.pid = pid

    def read(self):
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return self.text
            if not data:
                break
            self.text += data.decode(errors="replace")
        return self.text

    def end(self, number=None):
        if number:
            os.kill(self.pid, number)
        code = os.waitpid(self.pid, 0)[1]
        self.read()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(code)


def test_exit_status_is_health(pair):
    world, a, b = pair
    site = a.site
    a.write("health/x", "1")
    lib.converge(a, b)
    eventually(lambda: site.cli("status", check=False).returncode == 0, 30, "in step")
    assert "in step with 1 other site" in site.cli("status").stdout
    assert site.json("status")["health"] == "in_step"
    site.cli("peer", "pause", "beta")
    a.write("health/x", "2")
    late = eventually(lambda: (d := site.cli("status", "--max-lag", "0", "--json", check=False))
                      .returncode == 1 and d, 30, "lagging")
    assert json.loads(late.stdout)["health"] == "lagging"
    assert site.cli("status", "--max-lag", "100000").returncode == 0
    site.cli("peer", "resume", "beta")
    lib.converge(a, b)
    world.cut("reset")
    gone = eventually(lambda: (d := site.cli("status", "--json", check=False)).returncode == 2 and d,
                      30, "unreachable")
    assert json.loads(gone.stdout)["health"] == "unreachable"
    text = site.cli("status", check=False).stdout
    assert "NOT IN STEP" in text and "unreachable" in text
    world.heal()
    lib.converge(a, b)
    eventually(lambda: site.cli("status", check=False).returncode == 0, 30, "in step again")


def test_a_screenful(pair):
    world, a, b = pair
    lines = a.site.cli("status").stdout.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) < 110
    for word in "beta", "behind here", "space", "versions", "journal", "mounts     1", "conflicts":
        assert any(word in line for line in lines), (word, lines)


def grown(site, before):
    now = site.status()["space"]
    return {key: now[key] - before[key] for key in now}


def test_space_before_and_after_reduction(pair):
    """Two files of the same bytes, one that compresses, a small one: counted as what they hold, as
    what is different in them, and as what that is on disk; through overwriting and a crash."""
    world, a, b = pair
    site = a.site
    before, before_b = site.status()["space"], b.site.status()["space"]
    noise = world.random.randbytes(1 << 20)
    text = "".join(f"line {n}\n" for n in range(200_000)).encode()
    a.write("space/one", noise)
    a.write("space/two", noise)
    a.write("space/text", text)
    a.write("space/small", b"s" * 1000)
    with open(a / "space/holes", "wb") as f:
        f.truncate(1 << 30)
    os.link(a / "space/one", a / "space/link")
    held = 2 * len(noise) + len(text) + 1000
    g = grown(site, before)
    assert g["logical_bytes"] == held and g["inline_bytes"] == 1000
    nodes = 64 * 1024  # of manifests
    assert 0 <= g["plain_bytes"] - len(noise) - len(text) < nodes, g
    assert len(noise) < g["live_bytes"] < len(noise) + len(text) // 2, g
    a.write("space/text", text[:1_000_000])  # the former version keeps its chunks
    os.unlink(a / "space/two")
    held = len(noise) + 1_000_000 + 1000
    assert grown(site, before)["logical_bytes"] == held
    assert grown(site, before)["plain_bytes"] >= g["plain_bytes"]
    site.kill()
    site.serve()
    assert grown(site, before)["logical_bytes"] == held
    assert grown(site, before)["plain_bytes"] >= g["plain_bytes"]
    lib.converge(a, b)
    assert grown(b.site, before_b)["logical_bytes"] == held
    assert "hold" in site.cli("status", check=False).stdout


def test_watch_updates_in_place_and_over_a_restart(pair):
    world, a, b = pair
    t = Terminal(a.site, "status", "--watch")
    eventually(lambda: t.read().count("\x1b[H") >= 2, 30, "two frames")
    frames = t.text.split("\x1b[H")
    assert all("\n" not in f or "\x1b[K" in f for f in frames)
    assert frames[1].count("\n") == frames[1].count("\x1b[K\r\n")
    a.site.restart()
    seen = len(t.text)
    eventually(lambda: "beta" in t.read()[seen:], 30, "a frame after the restart")
    assert t.end(signal.SIGINT) == -signal.SIGINT


def test_wait_draws_how_far_it_is(pair):
    world, a, b = pair
    lib.converge(a, b)
    world.cut("stall")
    for n in range(50):
        a.write(f"wait/{n}", "x")
    t = Terminal(a.site, "wait", "--timeout", "60")
    eventually(lambda: re.search(r"\[[#-]{30}\] +\d+ %  [1-9]\d* operations to go", t.read()), 30,
               "a bar")
    world.heal()
    assert t.end() == 0
    # Nothing is drawn where nobody looks.
    assert a.site.cli("wait", "--timeout", "60").stderr == ""


# ---- docs/json.md ----

def answers(pair):
    world, a, b = pair
    site = a.site
    a.write("json/x", "1")
    a.write("json/x", "22")
    lib.converge(a, b)
    world.cut("reset")
    a.write("json/c", "by alpha\n")
    time.sleep(0.01)
    b.write("json/c", "by beta\n")
    world.heal()
    lib.converge(a, b)
    site = next(m.site for m in (a, b) if m.site.conflicts())
    conflict = site.conflicts()[0]["id"]
    yield "status", site.status()
    yield "wait", site.json("wait")
    yield "peer list", site.json("peer", "list")
    yield "peer invite", a.site.json("peer", "invite")
    yield "conflicts list", site.json("conflicts", "list")
    yield "conflicts resolve", site.json("conflicts", "resolve", conflict, "--keep", "mine")
    yield "conflicts undo", site.json("conflicts", "undo", conflict)
    yield "conflicts show", site.json("conflicts", "show", conflict)
    yield "journal show", site.json("journal", "show", "/json/x")
    yield "journal tail", site.json("journal", "tail")
    yield "restore", site.json("restore", "/json/x")
    yield "site keep-versions", site.json("site", "keep-versions")
    yield "site keep-journal", site.json("site", "keep-journal")
    yield "fsck", site.json("fsck")
    yield "gc", site.json("gc")
    yield "log-level", site.json("log-level")


def test_json_is_as_documented(pair):
    docs = jsondocs.documented()
    seen = {}
    for command, answer in answers(pair):
        members = docs.get(f"claudefs {command} --json")
        assert members is not None, f"{command} is not in docs/json.md"
        seen[f"claudefs {command} --json"] = jsondocs.check(command, answer, members)
    for section, members in docs.items():
        if section.endswith("--json"):
            assert section in seen, f"{section} is documented and not tested"
            missing = jsondocs.always(members) - seen[section]
            assert not missing, f"{section}: {sorted(missing)} missing"
