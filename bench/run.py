#!/usr/bin/python3
"""Starts what each benchmark needs, runs it, and writes the figures into bench/RESULTS.md.

Called by scripts/bench, which has built everything and set CLAUDEFS_BUILD. Each program's figures
stand between two marks in RESULTS.md, so that a run of some programs leaves the others' alone; what
is written by hand there stays.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("CLAUDEFS_BUILD", os.path.join(REPO, "build/release")))
RESULTS = os.path.join(REPO, "bench/RESULTS.md")
PROGRAM = os.path.join(BUILD, "claudefs")
READY_S = 30
RTT_MS = 80  # of the long link

sys.path.insert(0, os.path.join(REPO, "tests/e2e"))
import goals  # noqa: E402
import scale  # noqa: E402
from link import Link  # noqa: E402
from moosefs import MooseFS  # noqa: E402

# program -> (arguments of a quick run, of a full one). {dir}: on the disk to be measured.
ARGUMENTS = {
    "merge": ("-n 200000 -p 100000 -d {dir}", "-n 1000000 -p 1000000 -d {dir}"),
    "stream": ("-n 100000 -d {dir}", "-n 500000 -d {dir}"),
    "log": ("{dir} 5", "{dir} 15"),
    "sim": ("3 20000", "10 60000"),
    "rpc": ("2000", "5000"),
    "data_pipeline": ("4", "15"),
    "meta": ("-n 200 -r 3 -u 800", "-n 500 -r 10 -u 20000"),
    "meta_sync": ("-n 200 -r 3 -u 800", "-n 400 -r 10 -u 5000"),
    "data": ("-s 48 -r 3 -t 150", "-s 64 -r 10 -t 200"),
    "geo": ("-f 100 -b 1000 -s 48 -r 2 -t 200 -B 6000", "-f 300 -b 10000 -s 64 -r 10 -t 500"),
    "geo_far": ("-f 20 -b 500 -s 0 -r 1", "-f 100 -b 2000 -s 64 -r 10"),
    "peers_meta": ("-n 200 -r 3 -u 800", "-n 300 -r 10 -u 2000"),
    "peers_meta_sync": ("-n 200 -r 3 -u 0 -o 4t", "-n 300 -r 10 -u 2000"),
    "peers_data": ("-s 48 -r 3 -t 150", "-s 32 -r 10 -t 100"),
    "scale": ("-n 40000", "-n 200000"),
}
IDLE_S = (5, 20)  # how long two idle sites are watched
RESIDENT_GIB = (1, 20)  # what is written while the memory of the mount is looked at
TITLES = {
    "merge": "The engine on one core; the limit is the goal",
    "stream": "The stream between sites, part by part, on one core; the limit is the goal",
    "sim": "The simulator on one core; the limit is the goal",
    "log": "The journal, beside bare O_DIRECT|O_DSYNC writes",
    "rpc": "Mount to node, beside a bare socketpair",
    "data_pipeline": "Hash, compress, encrypt, beside the bare parts",
    "meta": "Names and attributes through a mount",
    "meta_sync": "Names and attributes through a mount with -o sync",
    "data": "Bytes through a mount",
    "geo": "From site to site",
    "geo_far": f"From site to site, {RTT_MS} ms round trip",
    "peers_meta": "Names and attributes, beside MooseFS; the limit is MooseFS",
    "peers_meta_sync": "Names and attributes with -o sync, beside MooseFS; the limit is MooseFS",
    "peers_data": "Bytes, beside MooseFS; the limit is MooseFS",
    "scale": "Many files; the limit is the goal",
}


def say(text):
    print(f"--- {text}", flush=True)


def run(*args):
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {shlex.join(args)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(condition, what):
    end = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: not within {READY_S} s: {what}")
        time.sleep(0.05)


class World:
    """Sites, mounts and file systems of one benchmark; all of it is gone in the end."""

    def __init__(self, where):
        self.dir = tempfile.mkdtemp(prefix="claudefs-bench-", dir=where)
        self.ending = contextlib.ExitStack()
        self.ending.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.daemons = {}  # of the sites, by directory

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending.close()

    def path(self, name):
        path = os.path.join(self.dir, name)
        os.makedirs(path, exist_ok=True)
        return path

    def run(self, *args):
        return run(PROGRAM, *args)

    def site(self, name, *more):
        site = os.path.join(self.dir, name)
        run(PROGRAM, "site", "create", name, "--dir", site, *more)
        self.serve(site)
        return site

    def spawn(self, args, log_name):
        """Ended with the world, if it still runs then."""
        with open(os.path.join(self.dir, log_name), "ab") as log:
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        process.log = log.name
        self.ending.callback(self.end, process)
        return process

    def serve(self, site):
        daemon = self.spawn([PROGRAM, "serve", "--dir", site], os.path.basename(site) + ".log")
        self.daemons[site] = daemon

        def up():
            self.alive(daemon)
            return subprocess.run([PROGRAM, "status", "--dir", site], capture_output=True,
                                  check=False).returncode in (0, 1, 2)
        until(up, f"daemon of {site}")

    @staticmethod
    def alive(process):
        if process.poll() is not None:
            with open(process.log, encoding="utf-8", errors="replace") as f:
                raise SystemExit(f"bench: {process.args[0]} ended: {f.read()[-2000:]}")

    @staticmethod
    def end(process):
        process.terminate()
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def mount(self, site, *options):
        at = self.path(os.path.basename(site) + "-mnt")
        run(PROGRAM, "mount", "--dir", site, *options, at)
        self.ending.callback(subprocess.run, ["fusermount3", "-u", "-z", at], check=False)
        remount = shlex.join(["fusermount3", "-u", at]) + " && " + \
            shlex.join([PROGRAM, "mount", "--dir", site, *options, at])
        return at, remount

    @staticmethod
    def mount_pid(at):
        return next(int(p) for p in os.listdir("/proc") if p.isdigit() and at.encode() in arguments_of(p))

    def memory(self, name, *options):
        at = self.path(name)
        run(os.path.join(BUILD, "bench/bench_memfs"), *options, at)
        self.ending.callback(subprocess.run, ["fusermount3", "-u", "-z", at], check=False)
        return at

    def pair(self, rtt_ms):
        """Two sites and their mounts; rtt_ms 0: nothing stands between them."""
        more = ["--wan", "127.0.0.1:0"]
        if rtt_ms:
            more = self.far_link(rtt_ms)
        alpha = self.site("alpha", *more)
        beta = self.site("beta")
        token = run(PROGRAM, "peer", "invite", "--dir", alpha).strip()
        run(PROGRAM, "peer", "accept", token, "--dir", beta)
        return self.mount(alpha)[0], self.mount(beta)[0]

    def asker(self):
        """A command that tells and asks the daemons of a pair."""
        path = os.path.join(self.dir, "ask")
        alpha, beta = os.path.join(self.dir, "alpha"), os.path.join(self.dir, "beta")
        verbs = {
            "status": ["status", "--json", "--dir", alpha],
            "status-beta": ["status", "--json", "--dir", beta],
            "wait": ["wait", "--timeout", "600", "--dir", alpha],
            "pause": ["peer", "pause", "beta", "--dir", alpha],
            "resume": ["peer", "resume", "beta", "--dir", alpha],
        }
        cases = "".join(f"{verb}) exec {shlex.join([PROGRAM, *args])} ;;\n"
                        for verb, args in verbs.items())
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'case "$1" in\n{cases}esac\nexit 2\n')
        return f"sh {shlex.quote(path)}"

    def far_link(self, rtt_ms):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            target = s.getsockname()
        link = Link(target)
        self.ending.callback(link.stop)
        link.set_latency(rtt_ms / 2000)
        return ["--wan", "%s:%d" % target, "--advertise", "%s:%d" % link.address]


# ---- running ----

def program_of(name):
    for suffix in "_far", "_sync":
        name = name.removesuffix(suffix)
    return os.path.join(BUILD, "bench/bench_" + name.removeprefix("peers_"))


def command_of(name, world, arguments):
    """The command line of a program, with all that it needs running."""
    args = shlex.split(arguments.format(dir=world.dir))
    if name in ("meta", "meta_sync", "data"):
        mount, remount = world.mount(world.site("alpha"),
                                     *(["-o", "sync"] if name == "meta_sync" else []))
        args += ["-m", world.memory("memory"), "-l", world.path("local"), "-R", remount]
        if name != "data":
            args += ["-z", world.memory("memory-cold", "-t", "0")]
        args.append(mount)
    elif name.startswith("peers_"):
        mount, remount = world.mount(world.site("alpha"),
                                     *(["-o", "sync"] if name.endswith("_sync") else []))
        peer = MooseFS(world, until)
        args += ["-m", peer.at, "-l", world.path("local")]
        if name != "peers_data":
            args += ["-z", peer.at, "-R", f"{remount} && {peer.remount}"]
        else:
            args += ["-R", remount, "-M", peer.remount]
        args.append(mount)
    elif name == "geo":
        pair = world.pair(0)
        args += ["-C", world.asker(), *pair]
    elif name == "geo_far":
        args += ["-d", str(RTT_MS), "-p", name, *world.pair(RTT_MS)]
    return [program_of(name), *args]


def printed(command):
    """The figures of a program, as it prints them."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        yield json.loads(line)
    if process.wait() != 0:
        raise SystemExit(f"bench: {command[0]} ended with {process.returncode}")


def beside_peer(figures):
    """Those in which the file system in the place of memory is the limit, under names that say so."""
    here = re.compile("meta_(?!unpack$|rm_r$|.*_beside_)(.*)|(?:meta|data)_(.*)_beside_memory")
    for f in figures:
        name = here.fullmatch(f["name"])
        if name:
            yield {**f, "name": f"peers_{name[1] or name[2]}"}


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.M)[1]) << 10


def mount_resident(world, gib):
    """The most that a mount of 256 MiB had in memory while one file was written. A quarter of each
    block is random: what is written faster than it is sealed is what memory fills with, and the disk
    has a quarter of the bytes to take."""
    mount, _ = world.mount(world.site("resident"), "-o", "cache_mb=256")
    pid = world.mount_pid(mount)
    block, peak = os.urandom(1 << 18) + bytes(3 << 18), 0
    with open(os.path.join(mount, "large"), "wb", buffering=0) as f:
        for i in range(gib << 10):
            f.write(i.to_bytes(8, "little") + block[8:])
            if i % 16 == 0:
                peak = max(peak, resident_bytes(pid))
        os.fsync(f.fileno())
    return {"name": f"data_mount_resident_{gib}gib", "value": peak, "unit": "B", "limit": 256 << 20,
            "ratio": round(peak / (256 << 20), 3), "samples": gib << 6}


def arguments_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().split(b"\0")
    except OSError:  # it has ended
        return []


def figures_of(name, world, arguments, quick):
    if name == "scale":
        yield from scale.run(world, program_of(name), shlex.split(arguments), IDLE_S[not quick])
        return
    figures = printed(command_of(name, world, arguments))
    yield from beside_peer(figures) if name.startswith("peers_") else figures
    if name == "data":
        yield mount_resident(world, RESIDENT_GIB[not quick])


def run_program(name, where, quick):
    """The figures it printed, as dicts."""
    arguments = ARGUMENTS[name][0 if quick else 1]
    figures, start = [], time.monotonic()
    if name.startswith("peers_") and MooseFS.why_not():
        say(f"{name}: left out: {MooseFS.why_not()}")
        return figures
    say(f"bench_{name} {arguments}")
    with World(where) as world:
        for f in figures_of(name, world, arguments, quick):
            print(json.dumps(f), flush=True)
            figures.append(f)
    say(f"bench_{name}: {time.monotonic() - start:.0f} s")
    return figures


# ---- the report ----

def number(value, unit):
    if value is None:
        return ""
    if unit == "B/s":
        return f"{value / 1e6:,.0f} MB/s"
    if unit == "B" and value >= 1e6:
        return f"{value / (1 << 20):,.0f} MiB"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text if unit in ("1", "") else f"{text} {unit.replace('1/s', '/s')}"


def table(figures):
    lines = ["| figure | median | limit | ratio | best | limit, best | ratio | n |",
             "|---|---|---|---|---|---|---|---|"]
    for f in figures:
        best, limit_best = f.get("best"), f.get("limit_best")
        ratio = f"{f['ratio']:.3g}" if f["ratio"] is not None else ""
        ratio_best = f"{best / limit_best:.3g}" if best is not None and limit_best else ""
        cells = [f["name"], number(f["value"], f["unit"]), number(f["limit"], f["unit"]), ratio,
                 number(best, f["unit"]), number(limit_best, f["unit"]), ratio_best,
                 str(f.get("samples", ""))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def commit():
    """Of the code: these results change while they are taken."""
    def git(*args):
        return subprocess.run(["git", "-C", REPO, *args], capture_output=True, text=True, check=False).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/RESULTS.md")
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def machine(where):
    """How fast the machine is at the moment, in a third of a second: one processor, and one small write."""
    block, hashed, start = bytes(1 << 20), 0, time.monotonic()
    while time.monotonic() < start + 0.15:
        hashlib.sha256(block).digest()
        hashed += 1
    rate = hashed / (time.monotonic() - start)
    written = 0
    with tempfile.TemporaryFile(dir=where) as f:
        fd = os.open(f"/proc/self/fd/{f.fileno()}", os.O_WRONLY | os.O_DSYNC)
        start = time.monotonic()
        while time.monotonic() < start + 0.15:
            os.pwrite(fd, block[:4096], written * 4096)
            written += 1
        writes = written / (time.monotonic() - start)
        os.close(fd)
    return f"SHA-256 of {rate * (1 << 20) / 1e6:,.0f} MB/s, {writes:,.0f} durable writes of 4 KiB a second"


def section_put(text, name, section):
    """The text with what stands between two marks replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    if not pattern.search(text):
        raise SystemExit(f"bench: {RESULTS} has no place for {name}: '{begin}' is missing")
    return pattern.sub(lambda _: f"{begin}\n{section}\n{end}", text)


def write_results(name, figures, command, before):
    """The program's table, and with it that of the goals."""
    said = (f"{TITLES[name]}. `{command}`, {time.strftime('%Y-%m-%d')}, commit {commit()}, {os.cpu_count()} "
            f"processors, {before}, load {os.getloadavg()[0]:.1f} after.")
    with open(RESULTS, encoding="utf-8") as f:
        text = section_put(f.read(), name, f"{said}\n\n{table(figures)}")
    text = section_put(text, "goals", goals.table(text))
    with open(RESULTS, "w", encoding="utf-8") as f:
        f.write(text)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repetitions")
    parser.add_argument("--dry", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--only", default=",".join(ARGUMENTS), help=",".join(ARGUMENTS))
    parser.add_argument("--files", type=int, help="of scale: as many, instead of a minute's worth")
    options = parser.parse_args()
    if options.files:
        ARGUMENTS["scale"] = (f"-n {options.files}",) * 2
    names = options.only.split(",")
    if not set(names) <= set(ARGUMENTS):
        parser.error(f"--only knows {', '.join(ARGUMENTS)}")
    where = os.environ.get("CLAUDEFS_BENCH_DIR", "/var/tmp")
    start = time.monotonic()
    for name in names:
        before = f"load {os.getloadavg()[0]:.1f} before: {machine(where)}"
        figures = run_program(name, where, options.quick)
        command = f"scripts/bench{' --quick' if options.quick else ''} --only {name}"
        if name == "scale" and options.files:
            command += f" --files {options.files}"
        if figures and not options.dry:
            write_results(name, figures, command, before)
    say(f"{len(names)} programs, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
