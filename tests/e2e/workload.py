#!/usr/bin/python3
"""A program that works in a mount and remembers what it was promised.

workload.py FOLDER RECORD SEED: creates, overwrites, appends, renames and removes files in FOLDER
until it is killed or its mount is. RECORD gets a line before each step ("begin ...") and one after
fsync returned ("ack"); the record is outside the mount and survives whatever is killed. expected()
reads it back: what must be there, and what may.
"""

import hashlib
import os
import random
import sys


def content(seed, number):
    """The content of step `number`: small ones ride in the operation, large ones are chunks."""
    size = random.Random(f"{seed} {number} size").choice((17, 900, 7000, 20000, 150000))
    block = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return (block * (size // 32 + 1))[:size]


def append_line(number):
    return b"%08d\n" % number


class Record:
    def __init__(self, path):
        self.file = open(path, "a", encoding="ascii")

    def write(self, line):
        self.file.write(line + "\n")
        self.file.flush()


def sync_folder(folder):
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path, data, flags):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        done = 0
        while done < len(data):
            done += os.write(fd, data[done:])
        os.fsync(fd)
    finally:
        os.close(fd)


def work(folder, record_path, seed):
    state = expected(record_path, seed)
    # A step that was begun and not acknowledged may or may not have happened: look.
    names = set(os.listdir(folder)) - {"log"}
    number = state.number
    draw = random.Random(f"{seed} from {number}")
    record = Record(record_path)
    while True:
        number += 1
        name, other = f"f{draw.randrange(12)}", f"f{draw.randrange(12)}"
        what = draw.choice(("write", "write", "write", "append", "append", "rename", "remove"))
        if what in ("rename", "remove") and name not in names or name == other:
            what = "append"
        record.write(f"begin {number} {what} {name} {other}")
        if what == "write":
            # Whole or not at all: a new file takes the name when it is on disk.
            write_file(os.path.join(folder, f"new-{number}"), content(seed, number), os.O_TRUNC)
            os.rename(os.path.join(folder, f"new-{number}"), os.path.join(folder, name))
            names.add(name)
        elif what == "append":
            write_file(os.path.join(folder, "log"), append_line(number), os.O_APPEND)
        elif what == "rename":
            os.rename(os.path.join(folder, name), os.path.join(folder, other))
            names.discard(name)
            names.add(other)
        else:
            os.unlink(os.path.join(folder, name))
            names.discard(name)
        sync_folder(folder)
        record.write(f"ack {number}")


class Expected:
    """files: name -> set of step numbers whose content it may have (0: may be missing).
    log: numbers that must be in the log, in order; maybe: those that may be."""

    def __init__(self):
        self.number, self.acked = 0, 0
        self.files, self.log, self.maybe = {}, [], set()

    def apply(self, number, what, name, other, certain):
        old = self.files.get(name, {0})
        if what == "append":
            (self.log.append if certain else self.maybe.add)(number)
        elif what == "write":
            self.files[name] = {number} if certain else old | {number}
        elif what == "remove":
            self.files[name] = {0} if certain else old | {0}
        elif certain:
            # A file that may be missing cannot have been renamed without an error.
            self.files[other] = old - {0} or old
            self.files[name] = {0}
        else:
            self.files[other] = self.files.get(other, {0}) | (old - {0})
            self.files[name] = old | {0}


def expected(record_path, seed):
    e = Expected()
    del seed
    if not os.path.exists(record_path):
        return e
    with open(record_path, encoding="ascii") as f:
        lines = [line.split() for line in f]
    pending = None
    for words in lines:
        if words[0] == "begin":
            if pending:
                e.apply(*pending, certain=False)
            pending = (int(words[1]), words[2], words[3], words[4])
            e.number = int(words[1])
        else:
            e.apply(*pending, certain=True)
            pending = None
            e.acked += 1
    if pending:
        e.apply(*pending, certain=False)
    return e


def check(folder, record_path, seed):
    """Sentences about what is not as promised; empty when all is well. Returns (bad, acked)."""
    e, bad = expected(record_path, seed), []
    for name, numbers in sorted(e.files.items()):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as f:
                data = f.read()
        except FileNotFoundError:
            if 0 not in numbers:
                bad.append(f"{path}: missing, was acknowledged as step {sorted(numbers)}")
            continue
        if not any(n and data == content(seed, n) for n in numbers):
            bad.append(f"{path}: {len(data)} bytes that no allowed step {sorted(numbers)} wrote")
    try:
        with open(os.path.join(folder, "log"), "rb") as f:
            log = f.read()
    except FileNotFoundError:
        log = b""
    lines = [int(x) if x.isdigit() else -1 for x in log.split(b"\n")[:-1]]
    if log and not log.endswith(b"\n"):
        bad.append(f"{folder}/log: torn at the end")
    if sorted(set(lines)) != lines or not set(lines) <= set(e.log) | e.maybe:
        bad.append(f"{folder}/log: lines that were not written, or twice, or out of order")
    lost = set(e.log) - set(lines)
    if lost:
        bad.append(f"{folder}/log: {len(lost)} acknowledged lines lost, first {min(lost)}")
    unknown = set(os.listdir(folder)) - set(e.files) - {"log"}
    unknown = {n for n in unknown if not n.startswith("new-")}
    if unknown:
        bad.append(f"{folder}: names nobody made: {sorted(unknown)}")
    return bad, e.acked


if __name__ == "__main__":
    try:
        work(sys.argv[1], sys.argv[2], sys.argv[3])
    except OSError as e:
        sys.exit(f"workload: {e}")
