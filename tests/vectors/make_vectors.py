#!/usr/bin/env python3
"""make_vectors.py DIR COUNT: histories of merge_model.py, one JSON file each."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import merge_model  # noqa: E402


def main():
    out, count = sys.argv[1], int(sys.argv[2])
    for seed in range(count):
        sites = 2 + seed % 4
        steps = 50 + seed * 37 % 551
        run = merge_model.run(seed, sites, steps)
        with open(os.path.join(out, f"{seed:04}.json"), "w", encoding="utf-8") as f:
            json.dump({"seed": seed, "tree": merge_model.check(run),
                       "sites": {s.sid: s.journal for s in run}}, f)


if __name__ == "__main__":
    main()
