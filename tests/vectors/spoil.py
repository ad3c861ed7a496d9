#!/usr/bin/env python3
"""spoil.py WAY FROM TO: makes of a good vector one that merge-vectors must refuse."""
import json
import sys


def first(vector, kind):
    return next(path for path, said in vector["tree"].items() if said[0] == kind)


def mode(vector):
    vector["tree"][first(vector, "file")][1] += 1


def content(vector):
    vector["tree"][first(vector, "file")][2] += "x"


def kind(vector):
    path = first(vector, "dir")
    vector["tree"][path] = ["file", vector["tree"][path][1], ""]


def less(vector):
    del vector["tree"][list(vector["tree"])[-1]]


def more(vector):
    vector["tree"]["/nowhere"] = ["file", 0, "x"]


def order(vector):
    """One site's order alone gives another tree: half of the operations have not come there."""
    journal = list(vector["sites"].values())[-1]
    del journal[len(journal) // 2:]


WAYS = {way.__name__: way for way in (mode, content, kind, less, more, order)}


def main():
    way, source, to = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        text = f.read()
    if way == "cut":
        text = text[:len(text) // 2]
    else:
        vector = json.loads(text)
        WAYS[way](vector)
        text = json.dumps(vector)
    with open(to, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
