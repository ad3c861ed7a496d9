"""The unit, under the real systemd: a machine is booted, with the package on it.

It is this machine's root below an overlay in memory, in namespaces of its own: systemd is process 1 in
there, and what it and the package write is gone with it. The network is this machine's; settings of the
kernel and devices are read only to it, as in a container."""

import os
import shutil
import subprocess

import pytest

import lib

UNIT = "claudefs@alpha.service"
SITE = "/var/lib/claudefs/alpha"
PACKAGE = "/root/claudefs.deb"
# $1: an empty directory, $2: the package.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
cp "$2" ./root/claudefs.deb
: > etc/fstab
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in dev run tmp; do
    mount -t tmpfs tmpfs $folder
done
for node in null zero full random urandom tty fuse; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test \
    /lib/systemd/systemd --system --unit=basic.target --show-status=no
"""


def cgroup2():
    """Where this process is in the hierarchy of version 2, or None."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        own = next((line[3:].strip() for line in f if line.startswith("0::")), None)
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if words[words.index("-") + 1] == "cgroup2" and own is not None:
                return words[4] + own.rstrip("/")
    return None


def why_not():
    if os.geteuid() != 0 or not os.path.exists("/lib/systemd/systemd") or not shutil.which("dpkg"):
        return "booting a machine needs root, systemd and dpkg"
    if cgroup2() is None:
        return "there is no hierarchy of cgroups of version 2, as systemd wants it"
    if lib.run("unshare", "--mount", "--pid", "--fork", "--cgroup", "mount", "-t", "tmpfs", "tmpfs", "/mnt",
               check=False).returncode != 0:
        return "no namespaces, or no mounts in them: this is a container"
    return None


class Machine:
    def __init__(self, world, package):
        where = os.path.join(world.dir, "machine")
        os.mkdir(where)
        self.cgroup = os.path.join(cgroup2(), f"claudefs-test-{os.getpid()}")
        os.mkdir(self.cgroup)
        self.log_path = os.path.join(world.dir, "machine.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", 'echo $$ > "$1/cgroup.procs" && exec unshare --mount --pid --fork --kill-child '
                 '--ipc --uts --cgroup sh -c "$0" sh "$2" "$3"', BOOT, self.cgroup, where, package],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = None

    def booted(self):
        code = self.process.poll()
        if code is not None:
            raise SystemError(f"it ended, exit status {code}: {lib.tail(self.log_path)}")
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
            children = f.read().split()
        assert children
        self.pid = children[0]
        return self.run("systemctl", "is-active", "basic.target", check=False).stdout == "active\n"

    def run(self, *args, **more):
        return lib.run("nsenter", "--target", self.pid, "--mount", "--pid", "--ipc", "--uts", "--cgroup",
                       "--wd=/", *args, **more)

    def systemctl(self, *args):
        done = self.run("systemctl", *args, check=False)
        assert done.returncode == 0, f"{args}: {done.stderr}{self.journal()}"
        return done.stdout

    def journal(self):
        return self.run("journalctl", "--no-pager", "--unit", UNIT).stdout

    def shown(self, *names):
        """Properties of the unit."""
        lines = self.systemctl("show", UNIT, "--property", ",".join(names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def serves(self):
        """The pid of a daemon that is ready, as the machine counts."""
        is_ = self.shown("ActiveState", "SubState", "MainPID")
        assert (is_["ActiveState"], is_["SubState"]) == ("active", "running"), is_
        return is_["MainPID"]

    def path(self, path):
        return f"/proc/{self.pid}/root{path}"

    def end(self):
        self.process.kill()  # and with it all that runs there
        self.process.wait()

        def gone():
            for where, _, _ in os.walk(self.cgroup, topdown=False):
                os.rmdir(where)
            return not os.path.exists(self.cgroup)
        lib.eventually(gone, 30, "all of it has ended")


@pytest.fixture
def machine(world, package):
    why = why_not()
    if why:
        pytest.skip(why)
    m = Machine(world, package)
    try:
        lib.eventually(m.booted, 60, "it has booted")
        m.run("dpkg", "--force-confold", "--install", PACKAGE)
        yield m
    finally:
        m.end()


def word(m, written=None):
    """What is in a file of the tree; or writes it."""
    path = m.path("/srv/word")
    if written is not None:
        with open(path, "w", encoding="ascii") as f:
            f.write(written)
    with open(path, encoding="ascii") as f:
        return f.read()


@pytest.mark.limit(300)
def test_the_unit_serves_a_site(machine):
    m = machine
    m.systemctl("start", "claudefs@nowhere.service")  # no site, no daemon, and no failure
    assert m.run("systemctl", "is-active", "claudefs@nowhere.service", check=False).stdout == "inactive\n"
    m.run("claudefs", "site", "create", "alpha", "--dir", SITE)
    m.systemctl("enable", "--now", UNIT)
    pid = m.serves()
    m.run("claudefs", "mount", "--dir", SITE, "/srv")
    assert word(m, "written") == "written"
    status = m.run("cat", f"/proc/{pid}/status").stdout
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status

    # It is killed: systemd starts it again, and the mount goes on.
    m.systemctl("kill", "--signal=KILL", UNIT)
    lib.eventually(lambda: m.shown("NRestarts")["NRestarts"] == "1" and m.serves() != pid, 60, "it is back")
    assert word(m) == "written" and word(m, "after a kill") == "after a kill"

    # It is stopped: at once, in order, and stays so.
    m.systemctl("stop", UNIT)
    ended = m.shown("ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
    assert ended == {"ActiveState": "inactive", "Result": "success", "ExecMainCode": "1",
                     "ExecMainStatus": "0"}, (ended, m.journal())
    m.systemctl("start", UNIT)
    assert word(m) == "after a kill"

    # What the operator sets for it; and an upgrade, with which it goes on.
    with open(m.path("/etc/default/claudefs"), "a", encoding="ascii") as f:
        f.write("CLAUDEFS_LOG=debug\n")
    m.systemctl("restart", UNIT)
    pid = m.serves()
    assert "--log\0debug\0" in m.run("cat", f"/proc/{pid}/cmdline").stdout
    m.run("dpkg", "--force-confold", "--install", PACKAGE)
    assert m.serves() != pid and word(m) == "after a kill"

    # Removed, it does not run; the site is there.
    m.run("dpkg", "--remove", "claudefs")
    assert m.run("systemctl", "is-active", UNIT, check=False).stdout == "inactive\n"
    assert os.path.exists(m.path(SITE + "/site.conf"))
