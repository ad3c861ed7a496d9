"""scripts/quickstart, as somebody would use it who has just got here. It builds build/ if need be."""

import os
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import lib
from lib import eventually

SCRIPT = os.path.join(lib.REPO, "scripts", "quickstart")


class Demo:
    def __init__(self, folder):
        self.folder = folder

    def run(self, *args, code=0, wrap=()):
        done = lib.run(*wrap, SCRIPT, *args, check=False, timeout=120,
                       env={**lib.environment(), "CLAUDEFS_DEMO": self.folder})
        assert done.returncode == code, done
        return done

    def mnt(self, name):
        return os.path.join(self.folder, name, "mnt")

    def pid(self, name):
        with open(os.path.join(self.folder, f"{name}.pid"), encoding="ascii") as f:
            return int(f.read())

    def hello(self, said):
        """The file that it says it wrote and read, and the milliseconds."""
        wrote = re.search(r"^--- wrote  (.*)$", said, re.M).group(1)
        read = re.search(r"^--- read   (.*)$", said, re.M).group(1)
        ms = re.search(r"^--- (\d+)\.\d{3} ms after it was closed at alpha$", said, re.M).group(1)
        return wrote, read, int(ms)


@pytest.fixture
def demo(tmp_path):
    # A name that scripts get wrong.
    d = Demo(str(tmp_path / "a demo"))
    yield d
    if os.path.exists(os.path.join(d.folder, ".claudefs-demo")):
        lib.run(SCRIPT, "stop", check=False, env={**lib.environment(), "CLAUDEFS_DEMO": d.folder})
    for name in "alpha", "beta":
        lib.unmount(d.mnt(name))


@pytest.mark.limit(900)
def test_start_again_and_stop(demo):
    said = demo.run().stdout
    wrote, read, _ = demo.hello(said)
    assert wrote.startswith(demo.mnt("alpha") + "/") and read.startswith(demo.mnt("beta") + "/")
    with open(wrote, encoding="ascii") as a, open(read, encoding="ascii") as b:
        assert a.read() == b.read() != ""
    assert "scripts/quickstart stop" in said
    pids = {name: demo.pid(name) for name in ("alpha", "beta")}
    with open(os.path.join(demo.mnt("beta"), "mine"), "w", encoding="ascii") as f:
        f.write("of the user")

    # What it says one can try.
    tries = [line.split("#")[0].strip() for line in said.splitlines()
             if " peer " in line or " wait " in line or " conflicts " in line]
    assert len(tries) == 4
    for command in tries:
        lib.run("bash", "-euc", quoted(command, demo.folder))

    # Again: all of it is still there.
    said = demo.run().stdout
    demo.hello(said)
    assert pids == {name: demo.pid(name) for name in pids}
    with open(os.path.join(demo.mnt("alpha"), "mine"), encoding="ascii") as f:
        assert f.read() == "of the user"

    # And when something of it has died.
    os.kill(pids["beta"], signal.SIGKILL)
    lib.unmount(demo.mnt("alpha"))
    eventually(lambda: not os.path.exists(f"/proc/{pids['beta']}"), 30, "it is gone")
    demo.hello(demo.run().stdout)
    assert demo.pid("alpha") == pids["alpha"] and demo.pid("beta") != pids["beta"]

    pids = [demo.pid(name) for name in ("alpha", "beta")]
    assert "stopped and removed" in demo.run("stop").stdout
    assert not os.path.exists(demo.folder)
    assert not any(lib.mounted(demo.mnt(name)) for name in ("alpha", "beta"))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert "nothing runs" in demo.run("stop").stdout


def quoted(command, folder):
    """As a person would type it where the folder's name has a space."""
    return re.sub(re.escape(folder), lambda m: m.group().replace(" ", "\\ "), command)


def test_a_folder_of_somebody_else_is_left_alone(demo):
    os.mkdir(demo.folder)
    mine = os.path.join(demo.folder, "thesis")
    with open(mine, "w", encoding="ascii") as f:
        f.write("x")
    for args in [], ["stop"]:
        done = demo.run(*args, code=1)
        assert demo.folder in done.stderr and done.stderr.startswith("quickstart: "), done
    assert os.listdir(demo.folder) == ["thesis"]


def test_it_says_when_there_is_no_fuse(demo, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to hide /dev/fuse from it")
    hide = tmp_path / "hide"
    hide.write_text("#!/bin/bash\n"
                    "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"\n")
    hide.chmod(0o755)
    done = demo.run(code=1, wrap=("unshare", "-m", str(hide)))
    assert done.stderr.startswith("quickstart: FUSE is missing"), done
    assert "modprobe fuse" in done.stderr
    assert not os.path.exists(demo.folder)


def test_wrong_words(demo):
    done = demo.run("strat", code=2)
    assert "scripts/quickstart stop" in done.stderr
    assert subprocess.run([SCRIPT, "--help"], capture_output=True, check=True).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be somebody else")
def test_who_is_not_root_is_told_what_is_missing():
    """A user without fusermount3, which lets users mount. (Its package is there: nothing is installed.)"""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o777)
        shutil.copytree(os.path.join(lib.REPO, "scripts"), os.path.join(top, "scripts"))
        programs = os.path.join(top, "bin")
        os.mkdir(programs)
        for folder in "/bin", "/usr/bin":
            for name in os.listdir(folder):
                if name != "fusermount3" and not os.path.lexists(os.path.join(programs, name)):
                    os.symlink(os.path.join(folder, name), os.path.join(programs, name))
        demo = os.path.join(top, "demo")
        done = lib.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PATH={programs}",
                       f"CLAUDEFS_DEMO={demo}", os.path.join(top, "scripts", "quickstart"), check=False)
        assert done.returncode == 1
        assert "run this as root" in done.stderr
        may_open = os.stat("/dev/fuse").st_mode & 0o006 == 0o006
        assert ("fusermount3" if may_open else "you may not open /dev/fuse") in done.stderr
        assert not os.path.exists(demo)
