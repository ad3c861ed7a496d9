"""kill -9 of daemons and mounts at random moments under load: everything that fsync acknowledged is
there, trees converge, fsck is clean. CLAUDEFS_CRASH_ROUNDS sets how often (30; scripts/soak: 200)."""

import collections
import os
import random
import sys
import threading

import pytest

import lib
import workload

ROUNDS = int(os.environ.get("CLAUDEFS_CRASH_ROUNDS", "30"))
SEED = int(os.environ.get("CLAUDEFS_CRASH_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


class Load:
    """A workload in its own folder of one mount."""

    def __init__(self, mount, name, seed):
        self.mount, self.name, self.seed = mount, name, seed
        self.folder = mount / name
        self.record = os.path.join(mount.site.world.dir, f"{name}.record")
        self.log = os.path.join(mount.site.world.dir, f"{name}.log")
        self.process = None
        os.makedirs(self.folder, exist_ok=True)

    def start(self):
        self.process = self.mount.site.world.spawn(
            [sys.executable, os.path.join(os.path.dirname(workload.__file__), "workload.py"),
             self.folder, self.record, self.seed], self.log)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        if self.process is not None:
            self.mount.site.world.kill(self.process)
            self.process = None

    def acked(self):
        return workload.expected(self.record, self.seed).acked

    def check(self, mount):
        bad, acked = workload.check(os.path.join(mount.path, self.name), self.record, self.seed)
        assert not bad, f"seed {SEED}:\n" + "\n".join(bad)
        return acked


def progress(load, steps, timeout=60):
    """The workload gets on by so many acknowledged steps."""
    start = load.acked()

    def moved():
        if not load.running():
            raise SystemError(f"workload {load.name} ended: {lib.tail(load.log)}")
        return load.acked() >= start + steps
    lib.eventually(moved, timeout, f"{load.name} to go on")


def crash(draw, victim):
    """After a random little while, in the middle of whatever it does."""
    threading.Event().wait(draw.random() * 0.5)
    victim.kill()


@pytest.fixture(params=["", "sync"])
def pair(world, request):
    """Two paired sites, each with a mount."""
    alpha, beta = world.two()
    return world, alpha.mount(request.param), beta.mount(request.param)


class Changes:
    """A program that changes a tree and never syncs, and knows what must be in it. Most of it
    concerns two directories, which two shards of the site have.

    files: path -> [text, mode], the same list for each name of a file; links: path -> what it says;
    folders: paths, the top first."""

    KINDS = {"make": 3, "chmod": 2, "write": 2, "rename": 3, "over": 1, "unlink": 2, "link": 1, "symlink": 1,
             "mkdir": 1, "rmdir": 1, "move": 1}
    FOLDERS_MAX = 12

    def __init__(self, folder, seed):
        self.folder, self.draw, self.files, self.count = folder, random.Random(seed), {}, 0
        self.links, self.folders = {}, [folder]
        self.done, self.error = threading.Event(), None
        self.busy = threading.Event()  # with changes that need not wait for the disk
        self.thread = threading.Thread(target=self.run)
        os.makedirs(folder)

    def step(self):
        """Many changes of every kind."""
        self.busy.set()
        for what in self.draw_kinds(300):
            self.change(what)
        self.busy.clear()

    def draw_kinds(self, count):
        return self.draw.choices(list(self.KINDS), list(self.KINDS.values()), k=count)

    def change(self, what):
        self.count += 1
        at = os.path.join(self.draw.choice(self.folders), f"n{self.count}")
        name = self.draw.choice(sorted(self.files)) if self.files else None
        if what == "make" or name is None:
            with open(at, "w", encoding="ascii") as f:
                f.write(f"{self.count}")
                os.fchmod(f.fileno(), 0o600)
            self.files[at] = [f"{self.count}", 0o600]
        elif what == "chmod":
            self.files[name][1] = self.draw.choice((0o600, 0o640, 0o644, 0o664))
            os.chmod(name, self.files[name][1])
        elif what == "write":
            with open(name, "a", encoding="ascii") as f:
                f.write(f" {self.count}")
            self.files[name][0] += f" {self.count}"
        elif what in ("rename", "over"):
            self.rename(name, at if what == "rename" else self.draw.choice(sorted(self.files)))
        elif what == "unlink":
            os.unlink(name)
            del self.files[name]
        elif what == "link":
            os.link(name, at)
            self.files[at] = self.files[name]
        elif what == "symlink":
            os.symlink(name, at)
            self.links[at] = name
        else:
            self.change_folders(what, at, self.draw.choice(self.folders[1:] or [None]))

    def rename(self, name, to):
        os.rename(name, to)
        if self.files.get(to) is not self.files[name]:  # two names of one file both stay
            self.files[to] = self.files.pop(name)

    def change_folders(self, what, at, folder):
        if what == "mkdir" and len(self.folders) < self.FOLDERS_MAX:
            os.mkdir(at)
            self.folders.append(at)
        elif what == "rmdir" and folder and not any(
                path.startswith(f"{folder}/") for path in [*self.files, *self.links, *self.folders]):
            os.rmdir(folder)
            self.folders.remove(folder)
        elif what == "move" and folder and not f"{at}/".startswith(f"{folder}/"):
            os.rename(folder, at)

            def moved(path):
                return at + path[len(folder):] if f"{path}/".startswith(f"{folder}/") else path
            self.files = {moved(path): f for path, f in self.files.items()}
            self.links = {moved(path): to for path, to in self.links.items()}
            self.folders = [moved(path) for path in self.folders]

    def run(self):
        try:
            while not self.done.is_set():
                self.step()
        except Exception as e:  # whatever it is: for the test to show
            self.error = e

    def check(self, folder):
        files, links, folders = {}, {}, []
        for top, _, names in os.walk(folder):  # no link is to a directory
            here = os.path.normpath(os.path.join(self.folder, os.path.relpath(top, folder)))
            folders.append(here)
            for name in names:
                path, known = os.path.join(top, name), os.path.join(here, name)
                if os.path.islink(path):
                    links[known] = os.readlink(path)
                    continue
                st = os.stat(path)
                with open(path, encoding="ascii") as f:
                    files[known] = (f.read(), st.st_mode & 0o777, st.st_nlink)
        names_of = collections.Counter(id(f) for f in self.files.values())
        assert files == {path: (*f, names_of[id(f)]) for path, f in self.files.items()}
        assert (links, sorted(folders)) == (self.links, sorted(self.folders))


@pytest.mark.limit(240)
def test_kill_9_of_daemon_loses_nothing_while_the_mount_lives(pair):
    """Synced or not: what the daemon had answered and lost, the mount makes again."""
    world, a, b = pair
    print(f"CLAUDEFS_CRASH_SEED={SEED}")
    draw = random.Random(SEED)
    changes = Changes(a / "changes", SEED)
    changes.thread.start()
    for _ in range(8):
        lib.eventually(lambda: changes.busy.is_set() or changes.error, 60, "changes")
        threading.Event().wait(draw.random() * 0.05)
        a.site.kill()
        a.site.serve()
    before = changes.count
    lib.eventually(lambda: changes.count > before + 10 or changes.error, 60, "changes")
    changes.done.set()
    changes.thread.join()
    assert changes.error is None
    changes.check(a / "changes")
    other = a.site.mount()
    changes.check(other / "changes")
    lib.converge(a, b)
    changes.check(b / "changes")


@pytest.mark.limit(240 + 30 * ROUNDS)
def test_kill_9_under_load(pair):
    world, a, b = pair
    draw = random.Random(SEED)
    print(f"CLAUDEFS_CRASH_SEED={SEED}")
    loads = [Load(a, "load-a", f"{SEED}a"), Load(b, "load-b", f"{SEED}b")]
    lib.converge(a, b)
    for load in loads:
        load.start()
    for round_ in range(ROUNDS // 3 if a.options else ROUNDS):
        load = draw.choice(loads)
        victim = draw.choice(("daemon", "daemon", "mount"))
        print(f"round {round_}: {victim} of {load.mount.site.name}", flush=True)
        for one in loads:
            progress(one, 3)
        if victim == "daemon":
            crash(draw, load.mount.site)
            load.mount.site.serve()
            progress(load, 3)  # the mount's calls waited, and go on
        else:
            crash(draw, load.mount)
            load.stop()
            load.mount.start()
            load.check(load.mount)
            load.start()
    for load in loads:
        progress(load, 5)
        load.stop()
    lib.converge(a, b)
    for load in loads:
        for mount in (a, b):
            assert load.check(mount) > 0
    for site in (a.site, b.site):
        site.fsck()
    for mount in (a, b):
        mount.stop()
        mount.site.stop()
        mount.site.fsck()


@pytest.mark.limit(300)
def test_kill_9_of_everything_at_once(pair):
    world, a, b = pair
    draw = random.Random(SEED)
    print(f"CLAUDEFS_CRASH_SEED={SEED}")
    load = Load(a, "load", f"{SEED}all")
    lib.converge(a, b)
    for _ in range(3):
        load.start()
        progress(load, 10)
        crash(draw, a.site)
        a.kill()
        load.stop()
        b.site.kill()
        b.kill()
        for mount in (a, b):
            mount.site.serve()
            mount.start()
        load.check(a)
    lib.converge(a, b)
    load.check(b)
    for site in (a.site, b.site):
        site.fsck()


@pytest.mark.limit(120)
def test_sync_mount_loses_nothing_with_node_and_mount(world):
    """What returned is on the disk, although nobody has synced it."""
    site = world.site("alpha", listens=False)
    mount = site.mount("sync")
    changes = Changes(mount / "changes", SEED)
    print(f"CLAUDEFS_CRASH_SEED={SEED}")
    for _ in range(4):
        for _ in range(25):
            changes.change(*changes.draw_kinds(1))
        site.kill()
        mount.kill()
        site.serve()
        mount.start()
        changes.check(mount / "changes")


@pytest.mark.limit(300)
def test_restart_while_a_new_site_joins(world):
    alpha = world.site("alpha")
    a = alpha.mount()
    for n in range(200):
        a.write(f"d{n % 10}/f{n}", os.urandom(n * 100))
    beta = world.site("beta", listens=False)
    token = alpha.cli("peer", "invite").stdout.strip()
    joining = threading.Thread(
        target=lambda: beta.cli("peer", "accept", token, check=False, timeout=300))
    joining.start()
    crash(random.Random(SEED), beta)
    joining.join()
    beta.serve()
    if "alpha" not in beta.peers():
        # It died before it belonged: the token is spent or not, a new one must do.
        world.pair(alpha, beta)
    b = beta.mount()
    lib.converge(a, b)
    beta.fsck()
