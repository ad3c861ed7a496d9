"""What is to be reached, and the table that says of each goal whether the tables of RESULTS.md reach it.

The table is made of the tables themselves, so it cannot say another thing than they do.
"""

import re

# (what, table, figure, "ratio" | "value" | "best", "<=" | ">=", bound, in the unit in which the table says it)
GOALS = [
    ("engine, in order, in memory: 1 M effects/s", "merge", "merge.in_order.effects", "value", ">=", 1e6),
    ("on RocksDB: 150,000/s", "merge", "merge.in_order_rocksdb.effects", "value", ">=", 150e3),
    ("moves mixed 200 deep: 250,000/s", "merge", "merge.moves_mixed_200_deep.effects", "value", ">=", 250e3),
    ("healed partition: 2x of in order", "merge", "merge.healed.operation", "ratio", "<=", 2),
    *((f"durable {what} (`-o sync`), 4 threads: 0.25 of memory", "meta_sync", f"meta_{what}_4t", "ratio", ">=", 0.25)
      for what in ("create", "rename", "unlink")),
    *((f"{what} ahead of the disk: 0.25 of memory", "meta", f"meta_{what}_4t", "ratio", ">=", 0.25)
      for what in ("create", "rename", "unlink")),
    *((f"{what}, 4 threads{how}: 0.8 of memory", table, f"meta_{what}_4t", "ratio", ">=", 0.8)
      for what in ("stat", "readdirplus") for table, how in (("meta", ""), ("meta_sync", ", `-o sync`"))),
    ("unpacking 20,000 files: 3x local", "meta", "meta_unpack", "ratio", "<=", 3),
    *((f"{what} of {kind}: 0.6 of the pipeline", "data", f"data_{name}_{figure}", "ratio", ">=", 0.6)
      for kind, figure in (("random data", "random"), ("text", "text"))
      for what, name in (("sequential write", "write"), ("cold read", "read_cold"))),
    ("4 KiB write + fsync, appended: 1,000/s", "data", "data_append_4k_fsync", "value", ">=", 1000),
    ("4 KiB write + fsync, over: 1,000/s", "data", "data_overwrite_4k_fsync", "value", ">=", 1000),
    ("4 KiB random read, cached: 0.8 of memory", "data", "data_random_read_4k_cached", "ratio", ">=", 0.8),
    ("4 KiB random read, cold: 5,000/s", "data", "data_random_read_4k_cold", "value", ">=", 5000),
    ("memory of the mount, 20 GiB written: 256 MiB", "data", "data_mount_resident_20gib", "ratio", "<=", 1),
    ("one file, close to readable, p50: 5 ms", "geo", "geo_single_p50", "value", "<=", 5),
    ("p99: 50 ms", "geo", "geo_single_p99", "value", "<=", 50),
    ("p50 at 80 ms round trip: 85 ms", "geo_far", "geo_far_single_p50", "value", "<=", 85),
    ("p99 at 80 ms round trip: 130 ms", "geo_far", "geo_far_single_p99", "value", "<=", 130),
    ("10,000 files: the last one 0.5 s after the last close", "geo", "geo_burst_last", "value", "<=", 0.5),
    ("2,000 files at 80 ms round trip: the same", "geo_far", "geo_far_burst_last", "value", "<=", 0.5),
    ("the stream alone: 400,000 operations/s", "stream", "stream.alone", "value", ">=", 400e3),
    ("a million operations caught up in 30 s", "geo", "geo_backlog_caught_up", "value", "<=", 30),
    ("40 bytes on the wire an operation of an unpacked tree", "geo", "geo_tree_bytes", "value", "<=", 40),
    ("eager data: 200 MB/s", "geo", "geo_eager", "value", ">=", 200),
    ("many files: rate at the end 0.8 of the beginning", "scale", "scale_create_at_the_end", "ratio", ">=", 0.8),
    ("daemon: 1 GiB", "scale", "scale_daemon_resident_peak", "ratio", "<=", 1),
    ("restart after `kill -9`: 5 s", "scale", "scale_restart_after_kill", "value", "<=", 5),
    ("idle, the site that invited: 1 % of a core", "scale", "scale_idle_inviter", "value", "<=", 0.01),
    ("idle, the one that joined", "scale", "scale_idle_joiner", "value", "<=", 0.01),
    *((f"ahead of MooseFS, durably: {name}", "peers_meta_sync", f"peers_{figure}", "ratio", way, 1)
      for name, figure, way in (
          ("create", "create_4t", ">="), ("create, one thread", "create_1t", ">="),
          ("create with 4 KiB", "create_4k_4t", ">="), ("rename", "rename_4t", ">="),
          ("rename, one thread", "rename_1t", ">="), ("unlink", "unlink_4t", ">="),
          ("unlink, one thread", "unlink_1t", ">="), ("unpack", "unpack", "<="), ("`rm -r`", "rm_r", "<="))),
    *((f"ahead of MooseFS: {name}", "peers_data", f"peers_{figure}", "ratio", ">=", 1)
      for name, figure in (
          ("write of random data", "write_random"), ("cold read of random data", "read_cold_random"),
          ("write of text", "write_text"), ("cold read of text", "read_cold_text"),
          ("4 KiB random read, cold", "random_read_4k_cold"))),
    ("simulator: 50,000 operations a second and core", "sim", "sim_operations", "value", ">=", 50e3),
    ("1,000 seeds in 10 minutes on two cores: 0.83/s", "sim", "sim_soak_seeds", "value", ">=", 0.833),
]


def tables(text):
    """{table: {figure: {"value", "limit", "ratio", "best"}}}, as RESULTS.md has them."""
    found = {}
    for name, body in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", text, re.S):
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines()
                if re.match(r"\| [a-z]\w*[._]", line)]
        found[name] = {r[0]: {"value": r[1], "limit": r[2], "ratio": r[3], "best": r[4]} for r in rows
                       if len(r) == 8}
    return found


def number(text):
    """The number of "1,234 MB/s"; None of an empty cell."""
    found = re.match(r"-?[\d,.]+(e[+-]?\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def reached(goal, found):
    """The line of one goal."""
    what, table, figure, kind, way, bound = goal
    cells = found.get(table, {}).get(figure)
    if cells is None:
        return f"| {what} | not measured | | |"
    value, best = number(cells[kind]), number(cells["best"])
    if value is None:
        raise SystemExit(f"bench: {figure} has no {kind} in RESULTS.md")
    good = value >= bound if way == ">=" else value <= bound
    # Of a ratio there is no best in the table: the bests of both sides need not be of one moment.
    near = kind == "value" and best is not None and (best >= bound if way == ">=" else best <= bound)
    said = cells["value"] if kind == "value" else f"{cells[kind]}: {cells['value']}"
    return f"| {what} | {said} | {cells['best']} | {'yes' if good else 'its best' if near else 'no'} |"


def table(text):
    """The table of all goals, for the text of RESULTS.md."""
    found = tables(text)
    lines = [reached(goal, found) for goal in GOALS]
    return "\n".join(["| goal | median | best | reached |", "|---|---|---|---|", *lines])
