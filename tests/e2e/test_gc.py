"""claudefs gc: the room of what was removed comes back when somebody asks for it, and what does not
is told with the reason."""

import os
import time

import lib

SIZE = 64 << 20


def on_disk(site):
    """Bytes of the chunk store's files."""
    total = 0
    for folder, _, names in os.walk(os.path.join(site.dir, "chunks")):
        for name in names:
            st = os.stat(os.path.join(folder, name))
            if name.startswith("0"):
                total += st.st_blocks * 512
    return total


def chunks(site):
    return site.status()["space"]["chunks"]


def write(path, size=SIZE):
    with open(path, "wb") as f:
        for _ in range(size >> 20):
            f.write(os.urandom(1 << 20))
        f.flush()
        os.fsync(f.fileno())


def gc(site):
    return site.json("gc")


def test_room_of_a_removed_file_comes_back_at_once(world):
    site = world.site("alpha")
    site.cli("site", "keep-versions", "0")
    m = site.mount()
    write(m / "big")
    write(m / "stays", 4 << 20)
    kept = lib.file_hash(m / "stays")
    before = on_disk(site)
    assert before > SIZE
    os.unlink(m / "big")
    r = gc(site)
    assert r["state"] == "done" and r["freed_bytes"] > SIZE * 0.99, r
    assert r["recent_chunks"] == 0 and r["waits_for"] == [], r
    assert on_disk(site) < before - SIZE * 0.8
    assert r["disk_after_bytes"] < r["disk_before_bytes"] - SIZE * 0.8
    again = site.cli("gc").stdout
    assert again.startswith("freed 0 chunks"), again
    assert lib.file_hash(m / "stays") == kept
    site.fsck()


def test_former_versions_are_kept_and_named(world):
    site = world.site("alpha")
    m = site.mount()
    write(m / "big", 8 << 20)
    os.unlink(m / "big")
    r = gc(site)
    assert r["versions_bytes"] >= 8 << 20 and r["freed_chunks"] == 0, r
    assert "former versions" in site.cli("gc").stdout
    site.cli("restore", "/big")
    assert os.path.getsize(m / "big") == 8 << 20


def test_what_is_being_written_stays(world):
    """The mount is asked to commit; what it writes while the pass runs is not lost either."""
    site = world.site("alpha")
    site.cli("site", "keep-versions", "0")
    m = site.mount()
    data = os.urandom(24 << 20)
    with open(m / "open", "wb") as f:
        for at in range(0, len(data), 1 << 20):
            f.write(data[at:at + (1 << 20)])
            f.flush()
            if at % (8 << 20) == 0:
                gc(site)
    gc(site)
    m.stop()
    m = site.mount()
    with open(m / "open", "rb") as f:
        assert f.read() == data
    site.fsck()


def test_a_site_that_is_away_is_named(world):
    alpha, beta = world.two()
    alpha.cli("site", "keep-versions", "0")
    m = alpha.mount()
    write(m / "big", 8 << 20)
    alpha.wait()
    beta.stop()
    os.unlink(m / "big")
    r = gc(alpha)
    assert r["waits_for"] == ["beta"] and r["freed_chunks"] == 0, r
    beta.serve()
    alpha.wait()
    lib.eventually(lambda: gc(alpha)["freed_bytes"] > 8 << 20, 120, "beta has confirmed")


def test_garbage_goes_though_the_daemon_is_killed_every_so_often(world):
    """Each run is shorter than the ten minutes between two passes; the mount lives on."""
    site = world.site("alpha")
    site.cli("site", "keep-versions", "0")
    m = site.mount()
    write(m / "stays", 4 << 20)
    kept, needed = lib.file_hash(m / "stays"), chunks(site)
    write(m / "big")
    os.unlink(m / "big")
    assert chunks(site) > needed + 15
    for seconds in (1, 10, 150):
        site.kill()
        site.serve()
        deadline = time.monotonic() + seconds * lib.SLOW
        while time.monotonic() < deadline and chunks(site) > needed:
            time.sleep(0.5)
    assert chunks(site) == needed
    site.kill()
    site.serve()
    assert lib.file_hash(m / "stays") == kept
    site.fsck()


def test_a_daemon_that_does_not_run_is_named(world):
    site = world.site("alpha")
    site.stop()
    done = site.cli("gc", check=False)
    assert done.returncode == 3 and "claudefs serve" in done.stderr, done.stderr
