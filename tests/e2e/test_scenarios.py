"""claudefs-sim run: the scenarios that come with it, its report as text, JSON and page, what it says
about mistakes. No daemon is needed; the page is opened in a real browser."""

import json
import os
import re
import shutil

import pytest

import browser
import jsondocs
import lib

pytestmark = pytest.mark.nofuse
SIM = os.path.join(lib.BUILD, "claudefs-sim")
FOLDER = os.path.join(lib.REPO, "sim", "scenarios")
SHOTS = os.environ.get("CLAUDEFS_SCREENSHOTS")  # a folder: pictures of each page go there
FULL = os.environ.get("CLAUDEFS_SCENARIOS_FULL")  # the long one at its full length: scripts/soak
SHORTER = {"week-outage": 1 if FULL else 1000}
NAMES = sorted(name[:-4] for name in os.listdir(FOLDER))
KEEPS_NOTHING = """[scenario]
duration = 30s
[site a]
work = collide
rate = 30/s
[site b]
work = collide
rate = 30/s
[events]
5s..15s = cut a b
"""


def sim(*args, **more):
    return lib.run(SIM, *args, timeout=7200 if FULL else 300, **more)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Runs each scenario once, when it is first asked for: text, JSON, path of the page."""
    folder, done = tmp_path_factory.mktemp("reports"), {}

    def report(name):
        if name not in done:
            page, data = folder / f"{name}.html", folder / f"{name}.json"
            text = sim("run", os.path.join(FOLDER, name + ".ini"), "--json", data, "--html", page,
                       "--shorter", SHORTER.get(name, 1)).stdout
            done[name] = text, json.loads(data.read_text()), page
        return done[name]
    return report


# ---- the six that come with the program ----

def test_there_are_six():
    assert NAMES == ["flapping-link", "site-lost", "three-continents", "two-campuses",
                     "week-outage", "wrong-clock"]


@pytest.mark.parametrize("name", NAMES)
def test_scenario_keeps_every_promise(reports, name):
    text, report, _ = reports(name)
    assert report["failure"] is None
    assert report["equal_after_ms"] is not None
    # "Every promise" is all of them; the full week has too many calls for one, and says so.
    assert report["order_looked_at"]
    assert report["answers_looked_at"] == (name != "week-outage" or not FULL)
    assert ("Not looked at" in text) != report["answers_looked_at"]
    trees = {s["tree"] for s in report["sites"] if not s["lost"]}
    assert len(trees) == 1 and None not in trees
    heals = [h for h in report["heals"] if h["caught_up_after_ms"] is not None]
    assert heals, "it was measured how long it took to catch up"
    assert all(h["caught_up_after_ms"] > 0 for h in heals)
    for site in report["sites"]:
        assert site["changes"] > 100
    for link in report["links"]:
        assert link["bytes"] > 1000
        assert f"{link['from']} -> {link['to']}" in text
    assert report["title"] in text and f"Conflicts: {report['conflicts']['count']}" in text


def lag_between(report, sender, receiver, begin_s, end_s):
    """The largest lag that was shown between two moments."""
    series = next(s for s in report["series"]["links"]
                  if (s["from"], s["to"]) == (sender, receiver))
    return max(lag for at, lag in zip(report["series"]["at_ms"], series["lag_ms"])
               if lag is not None and begin_s * 1000 <= at <= end_s * 1000)


def test_two_campuses_lag_grows_with_the_cut_and_is_gone_after(reports):
    report = reports("two-campuses")[1]
    assert [(c["begin_ms"], c["end_ms"]) for c in report["cuts"]] == [(300000, 600000)] * 2
    for link in report["links"]:
        ways = link["from"], link["to"]
        assert lag_between(report, *ways, 60, 299) < 2000
        assert 290000 <= lag_between(report, *ways, 300, 600) <= 301500
        assert lag_between(report, *ways, 630, 900) < 2000
    assert report["heals"][0]["caught_up_after_ms"] < 30000


def test_three_continents_relay_for_each_other(reports):
    """Bytes go one way only between two of them, and the third has what both wrote."""
    report = reports("three-continents")[1]
    cut = report["cuts"][0]
    assert (cut["from"], cut["to"]) == ("virginia", "frankfurt")
    assert lag_between(report, "virginia", "singapore", 180, 360) < 5000
    assert lag_between(report, "singapore", "virginia", 480, 719) > 200000
    assert lag_between(report, "frankfurt", "singapore", 870, 1020) < 5000


def test_flapping_link_is_made_good_again_and_again(reports):
    report = reports("flapping-link")[1]
    assert len(report["heals"]) > 10
    assert sum(link["resets"] for link in report["links"]) > 0
    assert sum(link["stalls"] for link in report["links"]) > 0


def test_lost_site_is_down_for_ever_and_the_others_go_on(reports):
    report = reports("site-lost")[1]
    assert [(s["name"], s["lost"]) for s in report["sites"]] == [
        ("geneva", False), ("lyon", True), ("turin", False)]
    assert report["downs"] == [{"begin_ms": 360000, "end_ms": report["ended_ms"],
                                "site": "lyon", "for_ever": True}]
    lost = next(s for s in report["sites"] if s["lost"])
    assert lost["tree"] is None
    assert all(s["changes"] > 1.5 * lost["changes"] for s in report["sites"] if not s["lost"])


def test_week_exchanges_all_of_it(reports):
    report = reports("week-outage")[1]
    for site in report["sites"]:
        assert site["calls"] == 2400000 // SHORTER["week-outage"]
        assert site["changes"] > site["calls"] * 0.4
    assert report["heals"][0]["caught_up_after_ms"] < 3600000


def test_wrong_clock_is_held_back_and_nothing_is_lost(reports):
    report = reports("wrong-clock")[1]
    assert [e["what"] for e in report["events"] if "clock" in e["what"]] == [
        "the clock of porto jumps ahead by 20 min 0 s", "the clock of porto jumps back by 24 min 0 s"]
    assert lag_between(report, "porto", "lisbon", 540, 900) > 60000
    assert lag_between(report, "lisbon", "porto", 540, 900) < 5000


# ---- the same again ----

def test_same_seed_same_bytes(tmp_path):
    path = os.path.join(FOLDER, "flapping-link.ini")
    made = []
    for number, seed in enumerate((3, 3, 4)):
        data, page = tmp_path / f"{number}.json", tmp_path / f"{number}.html"
        text = sim("run", path, "--shorter", 5, "--seed", seed, "--json", data, "--html", page)
        made.append((text.stdout, data.read_bytes(), page.read_bytes()))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_json_is_as_documented(reports):
    command = "claudefs-sim run --json FILE"
    members = jsondocs.documented()[command]
    seen = set()
    for name in NAMES:
        seen |= jsondocs.check(command, reports(name)[1], members)
    assert jsondocs.always(members) <= seen, sorted(jsondocs.always(members) - seen)


def test_json_on_the_standard_output(tmp_path):
    world = tmp_path / "w.ini"
    world.write_text(KEEPS_NOTHING)
    report = json.loads(sim("run", world, "--json", "-").stdout)
    assert report["failure"] is None
    assert sim("run", world, "--quiet").stdout == ""


def test_installed_scenarios_have_names(tmp_path):
    """As `cmake --install` lays them out; a file that is here comes first."""
    shutil.copytree(FOLDER, tmp_path / "share" / "claudefs" / "scenarios")
    os.mkdir(tmp_path / "bin")
    program = shutil.copy(SIM, tmp_path / "bin")
    text = lib.run(program, "run", "two-campuses", "--shorter", "50", cwd=tmp_path).stdout
    assert text.startswith("Two campuses over 80 ms\n")
    assert "50 times shorter than described" in text
    (tmp_path / "two-campuses").write_text(KEEPS_NOTHING)
    assert lib.run(program, "run", "two-campuses", cwd=tmp_path).stdout.startswith("Scenario\n")


def test_help_is_no_mistake():
    done = sim("run", "--help")
    assert done.stdout.startswith("usage: claudefs-sim run SCENARIO") and done.stderr == ""


def test_broken_promise_is_told(tmp_path):
    """A world that is given no time to become equal: the promise that is missed is in every report."""
    world, data, page = tmp_path / "w.ini", tmp_path / "r.json", tmp_path / "r.html"
    world.write_text(KEEPS_NOTHING.replace("5s..15s", "5s").replace("[site a]", "settle = 1s\n[site a]")
                     .replace("[events]", "[links]\nlatency = 700ms\n[events]"))
    done = sim("run", world, "--json", data, "--html", page, check=False)
    assert done.returncode == 1
    # Which of the things that are not over yet is met first depends on every message of the world.
    told = re.fullmatch(r"claudefs-sim: (P4: 31\.000 s: the sites have not converged 1 s after the last "
                        r"fault: [ab] (has not the same operations as the first|owes repairs))\n",
                        done.stderr)
    assert told, done.stderr
    what = told[1]
    assert f"A PROMISE WAS BROKEN: {what}\n" in done.stdout
    report = json.loads(data.read_text())
    assert report["failure"] == what and report["equal_after_ms"] is None
    assert [c["end_ms"] for c in report["cuts"]] == [30000, 30000]
    assert json.dumps(what) in page.read_text()


# ---- mistakes ----

def refused(tmp_path, text, told):
    """A world that is none: `told` begins with the line and the column."""
    world = tmp_path / "w.ini"
    world.write_text(text)
    done = sim("run", world, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{world}:{told}")
    assert done.stdout == ""


@pytest.mark.parametrize("line, column, found", [
    ("speed = 5", 1, '"speed": expected one of the keys'),
    ("rate = -5/s", 8, '"-5/s": expected a rate such as 20/s'),
    ("[link a c]", 9, '"c": expected a site that is described above: a'),
], ids=["unknown key", "negative rate", "no such site"])
def test_mistake_is_told_with_line_and_column(tmp_path, line, column, found):
    refused(tmp_path, f"[scenario]\nduration = 1m\n\n[site a]\n{line}\n", f"5:{column}: {found}")


def test_what_is_found_later_has_its_place_too(tmp_path):
    """How often a line flaps is drawn when the scenario is run."""
    refused(tmp_path, "[scenario]\nduration = 3h\n[site a]\n[site b]\n[events]\n"
            "1s..2h = flap a b down 1s up 1s\n", "6:1: too many events: expected at most 1024")


def test_nobody_left_is_a_mistake(tmp_path):
    refused(tmp_path, "[scenario]\nduration = 1m\n[site a]\n[site b]\n[events]\n1s = lose a\n2s = lose b\n",
            '7:1: "event": expected at least one site that is not lost')


def test_wrong_usage_is_status_two(tmp_path):
    for args in ([], ["a", "b"], ["x", "--seed"], ["x", "--seed", "-1"], ["x", "--shorter", "0"],
                 ["x", "--fast"]):
        done = sim("run", *args, check=False)
        assert done.returncode == 2 and "usage: claudefs-sim run SCENARIO" in done.stderr
    done = sim("run", tmp_path / "none.ini", check=False)
    assert done.returncode == 2 and "No such file" in done.stderr
    world = tmp_path / "w.ini"
    world.write_text(KEEPS_NOTHING)
    done = sim("run", world, "--html", tmp_path / "none" / "page", check=False)
    assert done.returncode == 1 and "cannot be written" in done.stderr


# ---- the page ----

needs_browser = pytest.mark.skipif(browser.why_none() is not None, reason=str(browser.why_none()))


@pytest.fixture(scope="module")
def open_page(reports):
    views = {}

    def view(name, dark=False, width=1280):
        key = (dark, width)
        if key not in views:
            views[key] = browser.Browser(width, 900, dark)
        views[key].open(f"file://{reports(name)[2]}")
        return views[key]
    yield view
    for b in views.values():
        b.close()


def count(b, css):
    return b.script("return document.querySelectorAll(arguments[0]).length", css)


def press(b, key):
    b.script("document.getElementById('timeline').dispatchEvent("
             "new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key)


@needs_browser
@pytest.mark.parametrize("name", NAMES)
def test_page_shows_what_the_report_says(reports, open_page, name):
    report = reports(name)[1]
    b = open_page(name)
    assert b.text("#title") == report["title"]
    assert b.text("#verdict") == "every promise held"
    assert b.text("#unseen") == ("" if report["answers_looked_at"] else
                                 "Not looked at: answers in shared directories, for there are too many.")
    assert count(b, "#timeline .lane") == len(report["sites"])
    assert count(b, "#timeline .curve") == len(report["links"])
    assert (count(b, "#timeline .cut") > 0) == bool(report["cuts"])
    assert count(b, "#timeline .down") == len(report["downs"])
    assert (count(b, "#timeline .conflict-mark") > 0) == bool(report["conflicts"]["count"])
    assert count(b, "#links tbody tr") == len(report["links"])
    for site in report["sites"]:
        assert site["name"] in b.text("#timeline")
    rows = count(b, "#list tbody tr")
    assert 0 < rows <= 25 if report["conflicts"]["list"] else rows == 0
    assert b.complaints() == []
    spilled = b.script("return [...document.querySelectorAll('section')].filter("
                       "s => s.scrollHeight > s.clientHeight + 2).map(s => s.innerText.slice(0, 40))")
    assert spilled == [], "the dashboard's style fits this page, too"
    assert b.script("return document.getElementById('timeline').clientHeight") < 700
    if SHOTS:
        for dark, width in ((False, 1280), (True, 1280), (False, 420)):
            view = open_page(name, dark, width)
            press(view, "n")
            view.screenshot(os.path.join(SHOTS, f"{name}-{'dark' if dark else 'light'}-{width}.png"))


@needs_browser
def test_page_can_be_pointed_at_and_used_with_keys(reports, open_page):
    report = reports("two-campuses")[1]
    b = open_page("two-campuses")
    press(b, "n")
    first = b.text("#picked .path")
    assert first in {c["path"] for c in report["conflicts"]["list"]}
    assert count(b, "#timeline .conflict-mark.on") >= 1
    press(b, "n")
    press(b, "p")
    assert b.text("#picked .path") == first
    # A mark that is pointed at tells of its conflict, too; so does a row of the table.
    b.script("document.querySelectorAll('#timeline .conflict-mark')[3].dispatchEvent("
             "new MouseEvent('click', {bubbles: true}))")
    assert "noticed at" in b.text("#picked")
    b.script("document.querySelectorAll('#list button')[2].click()")
    assert b.text("#picked .path") == b.text("#list tbody tr:nth-child(3) button")
    # Closer, and the moment under the cursor: at 7.5 of 15 minutes the link is cut.
    assert b.text("#span") == "15 min in all"
    press(b, "Home")
    for _ in range(50):
        press(b, "ArrowRight")
    moment = b.text("#moment")
    assert moment.startswith("7 min 30 s") and re.search(r"berlin → seattle: 2 min \d+ s behind", moment)
    press(b, "+")
    assert " to " in b.text("#span")
    assert b.script("return document.getElementById('whole').disabled") is False
    press(b, "0")
    assert b.text("#span") == "15 min in all"
    # A direction can be left out, and conflicts of one rule be asked for.
    b.script("document.querySelector('#curves input').click()")
    assert count(b, "#timeline .curve") == len(report["links"]) - 1
    rule = report["conflicts"]["rules"][0]
    b.script("const s = document.getElementById('rule'); s.value = arguments[0];"
             "s.dispatchEvent(new Event('change'))", str(rule["rule"]))
    assert 1 <= count(b, "#list tbody tr") <= min(25, rule["count"])
    assert all(rule["what"] in row for row in b.text("#list tbody").split("\n") if row.startswith("/"))
    assert b.complaints() == []


@needs_browser
def test_page_fits_light_dark_and_phone_and_asks_for_nothing(reports, open_page):
    colours = set()
    for dark, width in ((False, 1280), (True, 1280), (False, 420)):
        b = open_page("three-continents", dark, width)
        colours.add(b.script("return getComputedStyle(document.body).backgroundColor"))
        assert b.script("return document.documentElement.scrollWidth <= innerWidth")
        assert b.script("return performance.getEntriesByType('resource').length") == 0
    assert len(colours) == 2
    page = reports("three-continents")[2].read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)


@needs_browser
def test_page_shows_names_as_text(tmp_path, open_page, reports):
    """A title is no markup, wherever it comes from."""
    world, page = tmp_path / "w.ini", tmp_path / "page.html"
    title = "</script><img src=x onerror=document.title=1>"
    world.write_text(KEEPS_NOTHING.replace("[scenario]", f"[scenario]\ntitle = {title}"))
    sim("run", world, "--quiet", "--html", page)
    b = open_page("two-campuses")
    b.open(f"file://{page}")
    assert b.text("#title") == title
    assert count(b, "img") == 0 and b.complaints() == []
