"""A site's directory is replaced by an older copy of itself. Going on as if nothing had happened
would give two different operations one name; the site has to notice, and say so."""

import os
import shutil

import pytest

import lib


@pytest.mark.limit(300)
@pytest.mark.parametrize("who", ["alpha", "beta"])
def test_rolled_back_directory_is_noticed(two, who):
    world, a, b = two
    mount, other = (a, b) if who == "alpha" else (b, a)
    site = mount.site
    mount.write("before", "in the copy")
    lib.converge(a, b)
    mount.stop()
    site.stop()
    copy = site.dir + ".copy"
    shutil.copytree(site.dir, copy, symlinks=True, ignore=shutil.ignore_patterns("sock"))
    site.serve()
    mount.start()
    for n in range(20):
        mount.write(f"after{n}", "not in the copy")
    lib.converge(a, b)
    mount.stop()
    site.stop()
    shutil.rmtree(site.dir)
    os.rename(copy, site.dir)
    before = len(site.log())
    site.serve()
    lib.eventually(lambda: site.status()["wan_state"] == "rolled_back", 60,
                   "the site says that it was rolled back")
    said = site.status()["wan_error"]
    assert "rolled back" in said and "restore the newest copy" in said, said
    assert "claudefs site return" in said, said
    assert " rolled_back why=" in site.log()[before:], site.log()[before:][-2000:]
    text = site.cli("status", check=False)
    assert text.returncode == 2 and "rolled back" in text.stdout, text.stdout
    done = site.cli("wait", "--timeout", "5", check=False)
    assert done.returncode != 0 and "rolled back" in done.stderr, done
    # The other site is none the worse.
    assert other.names() == sorted(["before"] + [f"after{n}" for n in range(20)])
    assert other.site.alive()
    other.write("still works", "yes")
    assert other.text("still works") == "yes"
