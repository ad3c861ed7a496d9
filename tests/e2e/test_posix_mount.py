"""Our POSIX suite on a mount: every errno, mode, owner, time stamp, set-id, ACL and link count."""

import os

import pytest

import lib

SUITE = os.path.join(lib.BUILD, "tests", "posix-suite")
# What the mount leaves out, or a kernel or machine may: (group, a part of the reason). ACLs, file
# handles and O_DIRECT a file system need not have, this one does.
LEFT_OUT = [
    ("open-tmpfile", "EOPNOTSUPP"),
    ("size-allocate-modes", "FALLOC_FL_COLLAPSE_RANGE"),
    ("size-allocate-modes", "FALLOC_FL_INSERT_RANGE"),
    ("stat-statx", "tells no time of birth"),
    ("mode-fchmodat2", "the kernel has no fchmodat2"),
    ("many-open", "open files are allowed"),
]


@pytest.mark.limit(900)
@pytest.mark.parametrize("options", ["", "sync"])
def test_posix_suite(world, options):
    if not os.path.exists(SUITE):
        pytest.fail(f"{SUITE} is not built")
    if os.geteuid() != 0:
        pytest.skip("the suite acts as root and as two users: it must be started as root")
    a = world.site("alpha").mount(options)
    os.chmod(a.path, 0o755)
    done = lib.run(SUITE, a.path, check=False, timeout=800)
    lines = (done.stdout + done.stderr).splitlines()
    bad = [x for x in lines if "FAIL" in x or "not ok" in x]
    assert done.returncode == 0, "\n".join(bad[:100] or lines[-60:])
    skipped = [x.split(": ", 1) for x in lines if x.startswith("skip ")]
    beyond = [(group, why) for group, why in skipped
              if not any(group == f"skip {g}" and part in why for g, part in LEFT_OUT)]
    assert not beyond, f"the mount should have these: {beyond}"
    assert done.stdout.rstrip().endswith(f" {len(skipped)} skipped"), "one is not named"
