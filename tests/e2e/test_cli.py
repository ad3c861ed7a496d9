"""The command line: what is wrong is said and changes nothing; exit codes are those of the manual."""

import json
import os
import re
import signal

import pytest

import lib
from lib import claudefs

pytestmark = pytest.mark.nofuse

COMMANDS = [["site", "create"], ["serve"], ["mount"], ["dashboard", "url"], ["dashboard", "token"], ["peer", "invite"], ["peer", "accept"],
            ["peer", "list"], ["peer", "pause"], ["peer", "resume"], ["peer", "remove"],
            ["peer", "readmit"], ["status"],
            ["wait"], ["conflicts", "list"], ["conflicts", "show"], ["conflicts", "resolve"],
            ["journal", "tail"], ["journal", "show"], ["fsck"], ["gc"], ["log-level"]]


def refused(*args, code=2):
    done = claudefs(*args, check=False)
    assert done.returncode == code, done
    assert done.stdout == "", done
    assert "claudefs: " in done.stderr, done
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(world, command):
    done = claudefs(*command, "--help")
    assert done.stdout.startswith("usage: claudefs " + command[0]) and done.stderr == ""
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unknown_option_is_an_error(world, command):
    assert "--nonsense" in refused(*command, "--nonsense", "word")


def test_words_that_are_no_commands(world):
    refused("nonsense")
    refused("peer", "nonsense")
    refused("site", "nonsense")
    refused("conflicts", "nonsense")
    assert claudefs(check=False).returncode == 2
    assert claudefs("peer", check=False).returncode == 2


def test_version_and_help(world):
    assert claudefs("--version").stdout.startswith("claudefs ")
    assert claudefs("version").stdout == claudefs("--version").stdout
    assert "peer" in claudefs("help").stdout
    assert claudefs("--help").stdout == claudefs("help").stdout
    assert "invite" in claudefs("help", "peer").stdout


@pytest.mark.parametrize("args", [
    ["site", "create"], ["site", "create", "a", "b"], ["serve", "word"], ["status"], ["fsck"],
    ["peer", "accept"], ["wait", "--timeout", "soon"], ["wait", "--timeout", "-1"],
    ["conflicts", "resolve", "1"], ["conflicts", "resolve", "1", "--keep", "all"],
    ["journal", "tail", "--count", "0"], ["peer", "invite", "--expires", "0"],
    ["peer", "invite", "--expires"]], ids=" ".join)
def test_wrong_words(world, args):
    done = claudefs(*args, check=False)
    assert done.returncode == 2 and done.stdout == "" and "claudefs: " in done.stderr, done


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 33, "ä", ".."])
def test_site_names(world, name):
    path = os.path.join(world.dir, "new")
    refused("site", "create", name, "--dir", path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("option", ["--wan", "--listen", "--http", "--advertise"])
@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:65536", "a b:1"])
def test_addresses(world, option, address):
    path = os.path.join(world.dir, "new")
    refused("site", "create", "a", "--dir", path, option, address)
    assert not os.path.exists(path)


def test_shards(world):
    path = os.path.join(world.dir, "new")
    for bad in ("0", "257", "x", "-1", "8.0"):
        refused("site", "create", "a", "--dir", path, "--shards", bad)
    claudefs("site", "create", "a", "--dir", path, "--shards", "3")


def test_directory_from_the_environment(world):
    site = world.site("alpha")
    env = {**lib.environment(), "CLAUDEFS_DIR": site.dir}
    assert json.loads(claudefs("status", "--json", env=env).stdout)["name"] == "alpha"


@pytest.mark.parametrize("command", [["status"], ["wait"], ["peer", "list"], ["peer", "invite"],
                                     ["conflicts"], ["journal", "tail"], ["log-level", "info"]],
                         ids=" ".join)
def test_daemon_that_does_not_run(world, command):
    site = world.site("alpha", serve=False)
    said = refused(*command, "--dir", site.dir, code=3)
    assert "claudefs serve" in said


def test_fsck_with_and_without_the_daemon(world):
    site = world.site("alpha")
    assert site.json("fsck")["clean"] is True
    assert site.cli("fsck").stdout.strip().endswith("clean")
    site.stop()
    assert site.json("fsck")["clean"] is True
    assert site.cli("fsck", "--repair").stdout.strip().endswith("clean")


def test_answers_of_a_lone_site(world):
    site = world.site("alpha")
    assert site.json("peer", "list")["peers"] == []
    assert site.json("conflicts", "list")["conflicts"] == []
    assert site.json("conflicts")["conflicts"] == []
    status = site.json("status")
    assert status["name"] == "alpha" and len(status["shards"]) == 8 and status["peers"] == []
    assert "alpha" in site.cli("status").stdout
    site.cli("wait", "--timeout", "5")
    site.json("journal", "tail")
    site.cli("journal", "tail", "--count", "5")
    site.cli("log-level", "wan=debug,site=warn")
    assert site.cli("log-level", "loud", check=False).returncode == 5
    assert site.cli("conflicts", "show", "0123456789abcdef", check=False).returncode == 1
    assert site.cli("journal", "show", "/missing", check=False).returncode == 1
    for verb in ("pause", "resume", "remove", "readmit"):
        done = site.cli("peer", verb, "nobody", check=False)
        assert done.returncode in (1, 5) and "nobody" in done.stderr, done


def test_serve_in_the_background_returns_when_it_answers(world, tmp_path):
    site = world.site("alpha", serve=False)
    log = tmp_path / "other.log"
    for more, where in [((), os.path.join(site.dir, "serve.log")),
                        (("--log-file", str(log)), str(log))]:
        done = site.cli("serve", "--background", *more)
        pid = int(re.search(r"is served by process (\d+)", done.stdout)[1])
        try:
            assert site.json("status")["name"] == "alpha"  # at once
            again = refused("serve", "--background", *more, "--dir", site.dir, code=site.cli(
                "serve", check=False).returncode)
            assert "serve: " in again  # what the second one had to say in its log
        finally:
            os.kill(pid, signal.SIGTERM)
        lib.eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), what="the daemon ends")
        with open(where, encoding="utf-8") as f:
            said = f.read()
        assert "serving" in said and "stopped" in said
    refused("serve", "--log-file", str(log), "--dir", site.dir, code=2)
    refused("serve", "--background", "--log-file", "/none/log", "--dir", site.dir, code=6)


def test_serve_ends_on_both_signals(world):
    site = world.site("alpha")
    site.stop()
    site.serve()
    site.process.send_signal(2)
    assert world.join(site.process) == 0
    site.process = None
    assert lib.claudefs("serve", "--dir", site.dir, "--log", "loud", check=False).returncode == 2
