"""The history of a path: who, where, when, what."""

import lib


def test_history_of_a_path_names_both_sites(two):
    world, a, b = two
    a.write("notes.txt", "one")
    lib.converge(a, b)
    b.write("notes.txt", "two, longer")
    lib.converge(a, b)
    for site in (a.site, b.site):
        history = site.json("journal", "show", "/notes.txt")["history"]
        sites = {h["site"] for h in history}
        assert len(sites) == 2, history
        said = site.cli("journal", "show", "/notes.txt").stdout
        assert "write" in said
    tail = a.site.json("journal", "tail", "--count", "3")["history"]
    assert 1 <= len(tail) <= 3
