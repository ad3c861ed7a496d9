"""docs/json.md against what programs print."""

import os
import re

import lib

DOCS = os.path.join(lib.REPO, "docs", "json.md")


def documented():
    """Heading -> {path: type} of the tables in docs/json.md."""
    found, section = {}, None
    with open(DOCS, encoding="utf-8") as f:
        for line in f:
            if line.startswith("## "):
                section = found.setdefault(line[3:].strip().strip("`"), {})
            row = re.match(r"\| `([^`]+)` \| ([a-z ]+) \|", line)
            if row and section is not None:
                section[row[1]] = row[2].strip()
    return found


def flatten(value, path=""):
    """(path, type) of every member; elements of arrays are path[]."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    if isinstance(value, dict):
        if path:
            yield path, "object"
        for key, member in value.items():
            yield from flatten(member, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, "array"
        for member in value:
            yield from flatten(member, path + "[]")
    else:
        yield path, kinds[type(value)]


def check(command, answer, members):
    """Every member that is there is documented, with its type; returns their paths."""
    for path, kind in flatten(answer):
        assert path in members, f"{command}: {path} ({kind}) is not documented"
        kinds = members[path].replace(" or absent", "").split(" or ")
        assert kind in kinds, f"{command}: {path} is {kind}, documented as {members[path]}"
    return {path for path, _ in flatten(answer)}


def always(members):
    return {p for p, kind in members.items() if "absent" not in kind}
