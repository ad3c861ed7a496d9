"""docs/operations.md, typed in as it stands: every block runs on its machine, in order.

A machine is a directory. What the system would do is done by small stand-ins in its PATH: systemctl
starts and stops the real daemon, mount finds the line of its fstab and calls the real mount.claudefs
as mount(8) would, apt looks into the package that cpack makes. Paths and addresses are this test's."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import tarfile

import pytest

import lib
from conftest import world_of

DOCS = os.path.join(lib.REPO, "docs", "operations.md")

SYSTEMCTL = """
import os, re, signal, subprocess, sys, time
root, program = {root!r}, {program!r}
words = [w for w in sys.argv[1:] if not w.startswith("-")]
verb, unit = words[0], words[1]
name = re.fullmatch("claudefs@([a-z]+)", unit)[1]
pid_file = os.path.join(root, name + ".pid")
def alive(pid):
    try:
        with open(f"/proc/{{pid}}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
def stop():
    if os.path.exists(pid_file):
        with open(pid_file) as f:
            pid = int(f.read())
        if alive(pid):
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 60
            while alive(pid):
                assert time.monotonic() < end, "it does not stop"
                time.sleep(0.02)
        os.unlink(pid_file)
def start():
    directory = os.path.join(root, "lib", name)
    with open(os.path.join(root, name + ".log"), "ab") as log:
        p = subprocess.Popen([program, "serve", "--log", "info", "--dir", directory], stdin=subprocess.DEVNULL,
                             stdout=log, stderr=log, start_new_session=True)
    with open(pid_file, "w") as f:
        f.write(str(p.pid))
    end = time.monotonic() + 60
    while subprocess.run([program, "log-level", "--dir", directory], capture_output=True).returncode:
        assert p.poll() is None and time.monotonic() < end, "it does not start"
        time.sleep(0.02)
if verb in ("stop", "restart"):
    stop()
if verb in ("start", "restart", "enable"):
    start()
"""

MOUNT = """
import os, sys
with open({fstab!r}) as f:
    for line in f:
        site, at, kind, options = line.split()[:4]
        if at == sys.argv[1] and kind == "claudefs":
            os.execv({helper!r}, ["mount.claudefs", site, at, "-o", options])
sys.exit("no line for " + sys.argv[1])
"""


class Machines:
    def __init__(self, world, package):
        self.world, self.package, self.token = world, package, None
        self.address = "%s:%d" % world.free_address()
        self.root = world.dir
        self.helper = os.path.join(self.root, "mount.claudefs")
        os.symlink(lib.PROGRAM, self.helper)
        for name in "lib", "backup", "newdisk":
            os.mkdir(os.path.join(self.root, name))
        self.seen = set()

    def mnt(self, name):
        return os.path.join(self.root, f"mnt-{name}")

    def directory(self, name):
        return os.path.join(self.root, "lib", name)

    def _stand_in(self, where, name, text):
        path = os.path.join(where, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(f"#!{sys.executable}\n{text}")
        os.chmod(path, 0o755)

    def _path(self, name):
        where = os.path.join(self.root, f"bin-{name}")
        if name not in self.seen:
            self.seen.add(name)
            os.mkdir(where)
            os.symlink(lib.PROGRAM, os.path.join(where, "claudefs"))
            os.symlink(lib.PROGRAM, os.path.join(where, "mount.claudefs"))
            self._stand_in(where, "systemctl",
                           SYSTEMCTL.format(root=self.root, program=lib.PROGRAM))
            self._stand_in(where, "mount", MOUNT.format(
                fstab=os.path.join(self.root, f"fstab-{name}"), helper=self.helper))
            self._stand_in(where, "apt", "import subprocess, sys\nsys.exit(subprocess.call("
                           f"['dpkg-deb', '--contents', {self.package!r}], stdout=-3))\n")
        return where

    def run(self, name, script):
        for word, ours in {"/var/lib/claudefs/": os.path.join(self.root, "lib") + "/",
                           "/mnt/tree": self.mnt(name),
                           "/mnt/newdisk": os.path.join(self.root, "newdisk"),
                           "/srv/backup": os.path.join(self.root, "backup"),
                           "/etc/fstab": os.path.join(self.root, f"fstab-{name}"),
                           "0.0.0.0:7400": self.address,
                           "alpha.example.org:7400": self.address,
                           "TOKEN": shlex.quote(self.token or "TOKEN")}.items():
            script = script.replace(word, ours)
        env = lib.environment()
        env["PATH"] = self._path(name) + ":" + env["PATH"]
        # A file, not a pipe: daemons and mounts that the block starts would hold a pipe open.
        out = os.path.join(self.root, "out")
        with open(out, "w+", encoding="utf-8") as f:
            code = subprocess.run(["bash", "-euo", "pipefail", "-c", script], stdout=f, stderr=f,
                                  stdin=subprocess.DEVNULL, env=env, check=False,
                                  timeout=180 * lib.SLOW).returncode
            f.seek(0)
            text = f.read()
        assert code == 0, f"on {name}, exit status {code}:\n{script}\n{text}"
        if "peer invite" in script:
            self.token = text.split()[-1]
        return text

    def end(self):
        for name in self.seen:
            lib.unmount(self.mnt(name))
        for name in os.listdir(self.root):
            if name.endswith(".pid"):
                with open(os.path.join(self.root, name), encoding="ascii") as f:
                    pid = int(f.read())
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass


# Each goes on from where the one before it left the machines.
pytestmark = pytest.mark.xdist_group("procedures")


def procedures():
    """[(heading, [(machine, script)])] in the order of the document."""
    found, block, machine = [], None, None
    with open(DOCS, encoding="utf-8") as f:
        for line in f:
            if block is not None:
                if line.startswith("```"):
                    found[-1][1].append((machine, "".join(block)))
                    block = None
                else:
                    block.append(line)
            elif line.startswith("## "):
                found.append((line[3:].strip(), []))
            elif line.startswith("```"):
                machine = re.fullmatch(r"```sh ([a-z]+)\n", line)
                assert machine, f"a block that no machine is named for: {line!r}"
                machine, block = machine[1], []
    return found


@pytest.fixture(scope="module")
def machines(request, package):
    with world_of(request.node, 500) as world:
        m = Machines(world, package)
        try:
            yield m
        finally:
            m.end()


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def after_install(m):
    with open(os.path.join(m.mnt("alpha"), "first"), "w", encoding="ascii") as f:
        f.write("one")


def after_pair(m):
    assert read(os.path.join(m.mnt("beta"), "first")) == "one"


def after_add_a_third_site(m):
    assert read(os.path.join(m.mnt("gamma"), "first")) == "one"


def after_back_up(m):
    assert read(os.path.join(m.mnt("alpha"), "report.txt")) == "precious\n"
    assert read(os.path.join(m.mnt("beta"), "from-backup/report.txt")) == "precious\n"


def after_replace_a_disk(m):
    assert read(os.path.join(m.mnt("beta"), "first")) == "one"
    assert not os.path.exists(m.directory("beta.old"))


def gamma(m, *words):
    return json.loads(lib.claudefs(*words, "--json", "--dir", m.directory("gamma"), check=False).stdout)


def before_a_site_was_away_too_long(m):
    """Given up after seconds; then the limits are as the procedure sets them."""
    at_alpha = ("--dir", m.directory("alpha"))
    lib.claudefs("site", "keep-journal", "--age", "20s", *at_alpha)
    m.run("gamma", "claudefs wait --timeout 60 --dir /var/lib/claudefs/gamma\n"
          "claudefs peer pause alpha --dir /var/lib/claudefs/gamma\n"
          "claudefs peer pause beta --dir /var/lib/claudefs/gamma\n"
          "echo work > /mnt/tree/while-away\n")
    m.run("alpha", "echo more > /mnt/tree/meanwhile\n")
    lib.eventually(lambda: any(
        p["name"] == "gamma" and p["state"] in ("leaving", "removed") for p in json.loads(
            lib.claudefs("peer", "list", "--json", *at_alpha).stdout)["peers"]), 90, "given up")
    m.run("gamma", "claudefs peer resume alpha --dir /var/lib/claudefs/gamma\n"
          "claudefs peer resume beta --dir /var/lib/claudefs/gamma\n")
    lib.eventually(lambda: gamma(m, "status")["wan_state"] == "removed", 60, "gamma knows")


def after_a_site_was_away_too_long(m):
    for name in "alpha", "gamma":
        assert read(os.path.join(m.mnt(name), "while-away")) == "work\n"
        assert read(os.path.join(m.mnt(name), "meanwhile")) == "more\n"


def before_an_old_copy_was_put_in_place(m):
    m.run("gamma", "systemctl stop claudefs@gamma\n"
          "cp -a /var/lib/claudefs/gamma /srv/backup/gamma.copy\n"
          "systemctl start claudefs@gamma\n"
          "echo new > /mnt/tree/after-the-copy\n"
          "claudefs wait --timeout 60 --dir /var/lib/claudefs/gamma\n"
          "systemctl stop claudefs@gamma\n"
          "rm -r /var/lib/claudefs/gamma\n"
          "cp -a /srv/backup/gamma.copy /var/lib/claudefs/gamma\n"
          "systemctl start claudefs@gamma\n")
    lib.eventually(lambda: gamma(m, "status")["wan_state"] == "rolled_back", 60, "gamma knows")
    m.run("gamma", "echo old > /mnt/tree/in-the-copy\n")


def after_an_old_copy_was_put_in_place(m):
    for name in "alpha", "gamma":
        assert read(os.path.join(m.mnt(name), "in-the-copy")) == "old\n"
        assert read(os.path.join(m.mnt(name), "after-the-copy")) == "new\n"


def before_let_a_removed_site_back_in(m):
    lib.eventually(lambda: gamma(m, "status")["wan_state"] == "removed", 60, "gamma knows")
    m.run("gamma", "echo removed > /mnt/tree/while-removed\n")


def after_let_a_removed_site_back_in(m):
    m.run("alpha", "claudefs wait --timeout 60 --dir /var/lib/claudefs/alpha\n")
    for name in "alpha", "gamma":
        assert read(os.path.join(m.mnt(name), "while-removed")) == "removed\n"


def after_lose_a_site(m):
    assert read(os.path.join(m.mnt("delta"), "first")) == "one"

    def gone():  # when all who remain have said how far they have it
        peers = json.loads(lib.claudefs("peer", "list", "--json", "--dir",
                                        m.directory("alpha")).stdout)["peers"]
        states = {p["name"]: p["state"] for p in peers}
        assert states["delta"] == "connected"
        return states.get("gamma", "removed") == "removed"
    lib.eventually(gone, 60, "gamma is removed")


def secrets_of(m):
    for name in os.listdir(os.path.join(m.root, "lib")):
        for base, _, files in os.walk(m.directory(name)):
            for file in files:
                if file.endswith((".key", ".pem")) or "token" in file or "invite" in file:
                    with open(os.path.join(base, file), "rb") as f:
                        yield os.path.join(base, file), f.read()


def after_ask_for_help(m):
    bundle = os.path.join(m.root, "backup", "support.tar")
    with tarfile.open(bundle) as t:
        names = t.getnames()
        state = t.extractfile("status.json").read()
        levels = t.extractfile("log-levels.json").read()
    for name in "machine.txt", "files.txt", "site.conf", "wan.json", "conflicts.txt":
        assert name in names, names
    assert b'"alpha"' in state and b'"wan": "debug"' in levels
    assert stat.S_IMODE(os.stat(bundle).st_mode) == 0o600
    with open(bundle, "rb") as f:
        data = f.read()
    found = list(secrets_of(m))
    assert len(found) >= 6, [path for path, _ in found]
    for path, secret in found:
        if path.endswith("invites.json"):  # the fingerprint of a certificate is public: status has it
            secret = re.sub(rb'"used_by": *"[^"]*"', b"", secret)
        for part in [secret[i:i + 16] for i in range(0, len(secret) - 15, 16)]:
            if b"CERTIFICATE" in secret and b"PRIVATE" not in secret:
                break  # certificates are public
            assert part not in data and part.hex().encode() not in data, path
    assert b"report.txt" not in data, "a user's file name"
    assert b"PRIVATE KEY" not in data and m.token.encode() not in data


BEFORE = {name[len("before_"):].replace("_", " "): what for name, what in list(globals().items())
          if name.startswith("before_")}
CHECKS = {name[len("after_"):].replace("_", " "): check for name, check in list(globals().items())
          if name.startswith("after_")}


@pytest.mark.parametrize("heading", [h for h, blocks in procedures() if blocks])
def test_procedure(machines, heading):
    blocks = dict(procedures())[heading]
    if heading.lower() in BEFORE:  # what is to be mended
        BEFORE[heading.lower()](machines)
    for machine, script in blocks:
        machines.run(machine, script)
    check = CHECKS.pop(heading.lower(), None)
    if check:
        check(machines)


def test_every_check_belongs_to_a_procedure():
    assert {c for c in CHECKS} <= {h.lower() for h, _ in procedures()}
