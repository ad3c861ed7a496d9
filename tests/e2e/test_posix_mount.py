"""Our POSIX suite on a mount: every errno, mode, owner, time stamp, set-id, ACL and link count."""

import os

import pytest

import lib

SUITE = os.path.join(lib.BUILD, "tests", "posix-suite")


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
