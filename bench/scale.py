"""What grows with the number of files: a site is filled through its mount (bench_scale), then killed
and started again; then a second site joins, and both do nothing."""

import json
import os
import re
import subprocess
import time

GIB = 1 << 30
RESTART_GOAL_S = 5
IDLE_GOAL = 0.01  # of a core
WRITTEN_S = 60  # the last state is written down half a minute after the last change, and then compacted
RESIDENT_GOAL_BYTES = GIB
MOUNT_RESIDENT_GOAL_BYTES = 512 << 20  # 150 B for each of a million inodes, and cache_mb


def figure(name, value, unit, limit):
    """A line as the C programs print it; the limit is the goal."""
    value = float(f"{value:.5g}")
    ratio = round(value / limit, 3) if limit else None
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio,
            "best": value, "limit_best": limit, "samples": 1}


def memory_bytes(pid, what):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(rf"^{what}:\s+(\d+) kB", f.read(), re.MULTILINE)[1]) * 1024


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def disk_bytes(path):
    return sum(os.lstat(os.path.join(base, name)).st_blocks * 512
               for base, _, names in os.walk(path) for name in names)


def restarted_s(world, site, at):
    """kill -9 right after the last create; until the mount is answered and a name is found again."""
    world.daemons[site].kill()
    world.daemons[site].wait()
    start = time.monotonic()
    world.serve(site)
    os.statvfs(at)  # the kernel may know the name
    os.stat(os.path.join(at, "0000/0000/f000000000"))
    return time.monotonic() - start


def idle_share(pids, seconds):
    before, start = [cpu_s(p) for p in pids], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    return [(cpu_s(p) - b) / took for p, b in zip(pids, before)]


def run(world, program, arguments, idle_s):
    """Yields the figures."""
    site = world.site("alpha", "--wan", "127.0.0.1:0")
    at, _ = world.mount(site)
    pid = world.daemons[site].pid
    filled = subprocess.run([program, *arguments, "-p", str(pid), at], capture_output=True, text=True, check=False)
    if filled.returncode != 0:
        raise SystemExit(f"bench: {program} ended with {filled.returncode}: {filled.stderr}")
    yield from map(json.loads, filled.stdout.splitlines())
    files = next(int(n) for o, n in zip(arguments, arguments[1:]) if o == "-n")
    yield figure("scale_daemon_resident_peak", memory_bytes(pid, "VmHWM"), "B", RESIDENT_GOAL_BYTES)
    yield figure("scale_mount_resident_peak", memory_bytes(world.mount_pid(at), "VmHWM"), "B",
                 MOUNT_RESIDENT_GOAL_BYTES)
    yield figure("scale_disk_per_file", disk_bytes(site) / files, "B", None)
    yield figure("scale_restart_after_kill", restarted_s(world, site, at), "s", RESTART_GOAL_S)
    yield figure("scale_restart_processor_time", cpu_s(world.daemons[site].pid), "s", None)
    beta = world.site("beta")
    token = world.run( "peer", "invite", "--dir", site).strip()
    start = time.monotonic()
    world.run( "peer", "accept", token, "--dir", beta)
    world.run( "wait", "--timeout", "3600", "--dir", site)
    yield figure("scale_second_site_joins", time.monotonic() - start, "s", None)
    time.sleep(WRITTEN_S)
    pids = [world.daemons[s].pid for s in (site, beta)]
    shares = idle_share(pids, idle_s)
    yield figure("scale_idle_inviter", shares[0], "1", IDLE_GOAL)
    yield figure("scale_idle_joiner", shares[1], "1", IDLE_GOAL)
    for s, pid in zip(("inviter", "joiner"), pids):
        yield figure(f"scale_resident_{s}", memory_bytes(pid, "VmRSS"), "B", RESIDENT_GOAL_BYTES)
