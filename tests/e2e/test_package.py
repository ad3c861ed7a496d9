"""The Debian package that cpack makes: what is in it, and, as root, installed on this machine, used
as an operator would, and removed again. Nothing of it stays."""

import fcntl
import io
import os
import re
import shutil
import stat
import subprocess
import tarfile

import pytest

import lib

SITES = "/var/lib/claudefs"  # where the package's own sites are
DEFAULTS = "/etc/default/claudefs"
LOCK = "/run/claudefs-package-test.lock"  # two runs of this test on one machine take turns


def field(package, name):
    return lib.run("dpkg-deb", "--field", package, name).stdout.strip()


def members(package):
    """Path from the root -> what tar says of it."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as t:
        return {m.name.removeprefix("."): m for m in t.getmembers()}


@pytest.mark.nofuse
def test_what_is_in_it(package):
    there = members(package)
    for path in ("/usr/bin/claudefs", "/usr/sbin/mount.claudefs", DEFAULTS,
                 "/usr/lib/systemd/system/claudefs@.service",
                 "/usr/share/bash-completion/completions/claudefs",
                 "/usr/share/zsh/vendor-completions/_claudefs",
                 "/usr/share/man/man8/mount.claudefs.8", "/usr/share/doc/claudefs/metrics.md",
                 "/usr/share/doc/claudefs/claudefs-alerts.yml"):
        assert path in there, (path, sorted(there))
    pages = os.listdir(os.path.join(lib.REPO, "docs", "man"))
    assert {p for p in pages if p.endswith(".1")} == \
        {os.path.basename(p) for p in there if "/man1/" in p}
    assert there["/usr/sbin/mount.claudefs"].linkname == "../bin/claudefs"
    for path, m in there.items():
        assert m.uid == m.gid == 0 and (m.issym() or not m.mode & 0o6022), (path, oct(m.mode))
    depends = field(package, "Depends")
    for needed in "fuse3", "libc6", "libfuse3-3", "librocksdb":
        assert needed in depends, depends


@pytest.mark.nofuse
@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/claudefs"])
def test_installed_without_a_package(tmp_path, prefix):
    """cmake --install, as README.md says it: to where programs look."""
    lib.run("cmake", "--install", lib.BUILD, "--prefix", prefix, timeout=120,
            env={**lib.environment(), "DESTDIR": str(tmp_path)})
    at = f"{tmp_path}{prefix}"
    assert lib.run(f"{at}/bin/claudefs", "version").stdout == lib.claudefs("version").stdout
    for page in "man1/claudefs.1", "man8/mount.claudefs.8":
        assert os.path.exists(f"{at}/share/man/{page}"), page
    with open(f"{at}/lib/systemd/system/claudefs@.service", encoding="utf-8") as f:
        assert f"ExecStart={prefix}/bin/claudefs serve" in f.read()
    sbin = "/usr/sbin" if prefix == "/usr/local" else f"{prefix}/sbin"  # mount(8) looks in no other
    helper = f"{tmp_path}{sbin}/mount.claudefs"
    assert os.path.samefile(helper, f"{at}/bin/claudefs")


@pytest.mark.nofuse
def test_unpacked_it_runs(package, tmp_path):
    lib.run("dpkg-deb", "-x", package, tmp_path)
    program = tmp_path / "usr/bin/claudefs"
    assert lib.run(program, "version").stdout == lib.claudefs("version").stdout
    assert not lib.run("ldd", program).stdout.count("not found")
    helper = lib.run(tmp_path / "usr/sbin/mount.claudefs", check=False)
    assert helper.returncode != 0 and "mount.claudefs" in helper.stderr
    unit = (tmp_path / "usr/lib/systemd/system/claudefs@.service").read_text()
    assert re.search(r"^ExecStart=/usr/bin/claudefs serve ", unit, re.MULTILINE)
    assert "@" not in re.sub(r"claudefs@|%i|%", "", unit)


class Machine:
    """This one, with the package on it."""

    def __init__(self, world):
        self.world = world
        self.had_sites = os.path.exists(SITES)

    @staticmethod
    def dpkg(*args):
        """Waits while something else has the package database."""
        def done():
            d = lib.run("dpkg", "--force-confold", *args, check=False, timeout=300)
            assert "lock" not in d.stderr or d.returncode == 0, d.stderr
            return d
        d = lib.eventually(done, 120, "the package database is free")
        assert d.returncode == 0, d.stdout + d.stderr

    def clean(self):
        self.dpkg("--purge", "claudefs")
        if not self.had_sites:
            shutil.rmtree(SITES, ignore_errors=True)


@pytest.fixture
def machine(world):
    if os.geteuid() != 0 or not shutil.which("dpkg"):
        pytest.skip("installing a package needs dpkg, and root")
    with open(LOCK, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = lib.run("dpkg-query", "-W", "-f", "${Status}", "claudefs", check=False).stdout
        if "installed" in status and "not-installed" not in status:
            pytest.skip("this machine has the package: it is left as it is")
        m = Machine(world)
        try:
            yield m
        finally:
            m.clean()


@pytest.mark.limit(400)
def test_installed_used_and_removed(package, machine):
    world = machine.world
    machine.dpkg("--install", package)
    assert stat.S_IMODE(os.stat(SITES).st_mode) == 0o700
    program = shutil.which("claudefs", path="/usr/bin")
    assert lib.run(program, "version").stdout == lib.claudefs("version").stdout
    assert stat.S_IMODE(os.stat(DEFAULTS).st_mode) == 0o644
    if shutil.which("systemd-analyze"):
        unit = lib.run("systemd-analyze", "verify", "/lib/systemd/system/claudefs@.service",
                       check=False)
        assert "claudefs" not in unit.stderr, unit.stderr

    # A site of this test's, served by what was installed, and mounted by mount(8): from a line
    # of an fstab, and by type.
    site = os.path.join(world.dir, "site")
    lib.run(program, "site", "create", "alpha", "--dir", site)
    daemon = world.spawn([program, "serve", "--dir", site], os.path.join(world.dir, "daemon.log"))
    lib.eventually(lambda: lib.run(program, "log-level", "--dir", site, check=False)
                   .returncode == 0, 30, "the daemon answers")
    tree, fstab = os.path.join(world.dir, "tree"), os.path.join(world.dir, "fstab")
    os.mkdir(tree)
    with open(fstab, "w", encoding="ascii") as f:
        f.write(f"{site} {tree} claudefs noauto,nofail,x-systemd.requires=claudefs@alpha.service 0 0\n")
    lib.run("mount", "--fstab", fstab, tree)
    with open(os.path.join(tree, "kept"), "w", encoding="ascii") as f:
        f.write("by the installed program")
    kind = lib.run("findmnt", "--noheadings", "--output", "FSTYPE", tree).stdout.strip()
    assert kind.startswith("fuse"), kind
    lib.run("umount", tree)
    lib.run("mount", "-t", "claudefs", "-o", "ro", site, tree)
    with open(os.path.join(tree, "kept"), encoding="ascii") as f:
        assert f.read() == "by the installed program"
    with pytest.raises(OSError):
        open(os.path.join(tree, "new"), "w", encoding="ascii").close()
    lib.run("umount", tree)
    failed = lib.run("mount", "-t", "claudefs", os.path.join(world.dir, "nowhere"), tree, check=False)
    assert failed.returncode != 0 and "nowhere" in failed.stderr, failed
    daemon.terminate()
    assert world.join(daemon) == 0

    # An upgrade leaves what the operator wrote, a removal too, a purge takes it; sites stay.
    with open(DEFAULTS, "a", encoding="ascii") as f:
        f.write("CLAUDEFS_LOG=debug\n")
    mine = os.path.join(SITES, "of-the-package-test")
    os.mkdir(mine)
    try:
        machine.dpkg("--install", package)
        with open(DEFAULTS, encoding="ascii") as f:
            assert f.read().endswith("CLAUDEFS_LOG=debug\n")
        machine.dpkg("--remove", "claudefs")
        assert not os.path.exists("/usr/bin/claudefs") and os.path.exists(DEFAULTS)
        assert not os.path.lexists("/usr/sbin/mount.claudefs")
        machine.dpkg("--purge", "claudefs")
        assert not os.path.exists(DEFAULTS) and os.path.isdir(mine)
    finally:
        os.rmdir(mine)
