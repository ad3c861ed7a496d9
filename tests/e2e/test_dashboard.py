"""The dashboard: what the page shows while two real sites are in step, cut apart, healed and
restarted; its JSON and metrics; who may see it; and what bad clients do to it."""

import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

import browser
import lib

SHOTS = os.environ.get("CLAUDEFS_SCREENSHOTS")  # a folder: pictures of each moment go there
DOCS = os.path.join(lib.REPO, "docs")


def url(site):
    return site.cli("dashboard", "url").stdout.strip()


def fetch(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as r:
        return r.read().decode()


def code_of(address, **headers):
    try:
        fetch(address, **headers)
        return 200
    except urllib.error.HTTPError as e:
        return e.code


def status(site):
    return json.loads(fetch(url(site) + "api/status"))


def peer(site, name="beta"):
    return next(p for p in status(site)["peers"] if p["name"] == name)


class Views:
    """The page in light and dark, on a desk and a phone, open all the time."""

    def __init__(self, address):
        self.open = {}
        try:
            for name, width, height, dark in (("desk-light", 1280, 900, False),
                                              ("phone-dark", 390, 844, True)):
                b = self.open[name] = browser.Browser(width, height, dark)
                b.open(address)
        except BaseException:
            self.close()
            raise

    def wait(self, what, condition, timeout=30):
        for name, b in self.open.items():
            lib.eventually(lambda b=b: condition(b), timeout, f"{name}: {what}")
            assert b.script("return document.documentElement.scrollWidth <= innerWidth"), name
        if SHOTS:
            for name, b in self.open.items():
                b.screenshot(os.path.join(SHOTS, f"{name}-{what.replace(' ', '-')}.png"))

    def close(self):
        for b in self.open.values():
            b.close()


@pytest.mark.limit(400)
def test_page_through_a_day(two):
    if browser.why_none():
        pytest.skip(browser.why_none())
    world, a, b = two
    a.write("report", "first")
    lib.converge(a, b)
    views = Views(url(a.site))
    try:
        views.wait("in step", lambda v: v.text("#health") == "in step" and
                   "connected" in v.text("#cards") and "beta" in v.text("#cards"))
        world.cut("reset")
        a.write("report", "by alpha")
        b.write("report", "by beta, longer")
        for n in range(50):
            a.write(f"file{n}", "x")
        views.wait("link cut", lambda v: v.text("#health") == "a site is not reached" and
                   "operations" in v.text("#cards"))
        world.heal()
        lib.converge(a, b)
        views.wait("healed", lambda v: v.text("#health") == "in step" and
                   "nothing" in v.text("#cards"))
        if not a.site.conflicts():  # the site whose rule decided lists it
            views.close()
            views = Views(url(b.site))
        views.wait("conflict", lambda v: "/report" in v.text("#conflicts") and
                   "claudefs conflicts resolve" in v.text("#conflicts"))
        lib.eventually(lambda: all("Worst in this time" in v.text("#chart-text")
                                   for v in views.open.values()), 30, "a chart")
        for name, v in views.open.items():
            complaints = [c for c in v.complaints() if "ERR_" not in c]
            assert not complaints, (name, complaints)
    finally:
        views.close()


@pytest.mark.limit(300)
def test_history_outlives_the_daemon(two):
    world, a, b = two
    lib.converge(a, b)

    def known():
        return json.loads(fetch(url(a.site) + "api/history?peer=beta&grain=0"))
    lib.eventually(lambda: len(known()["lag_in_s"]) >= 2, 60, "some history")
    before = known()
    a.site.stop()
    a.site.serve()
    after = lib.eventually(known, 60, "history after the restart")
    assert after["first_s"] == before["first_s"] and \
        len(after["lag_in_s"]) >= len(before["lag_in_s"])
    a.site.stop()
    with open(os.path.join(a.site.dir, "http.history"), "r+b") as f:
        f.seek(40)
        f.write(b"rubbish")
    a.site.serve()
    assert "history_begins_anew" in a.site.log()
    assert a.site.alive()


@pytest.mark.limit(300)
def test_lag_is_true(two):
    """A stamp each 100 ms at alpha, looked for at beta: the reported lag agrees. Cut, it rises by a
    second a second; healed, it is gone."""
    world, a, b = two
    a.write("stamp", "0")
    lib.converge(a, b)
    stop = threading.Event()

    def writer():
        while not stop.wait(0.1):
            a.write("stamp", str(time.time()))
    lib.eventually(lambda: any("lag_in_s" in p for p in status(b.site)["peers"]), 30,
                   "the link is known")
    t = threading.Thread(target=writer)
    t.start()
    try:
        off = []
        for _ in range(25):
            told = peer(b.site, "alpha")["lag_in_s"]
            seen = max(0.0, time.time() - float(b.text("stamp")) - 0.1)
            off.append(abs(told - seen))
            stop.wait(0.2)
        assert sorted(off)[len(off) // 2] < 0.2 * lib.SLOW, off
        world.cut("stall")
        cut = time.monotonic()
        lib.eventually(lambda: peer(b.site, "alpha")["lag_in_s"] > 1, 10, "lag is noticed")
        first, at = peer(b.site, "alpha")["lag_in_s"], time.monotonic()
        assert abs(first - (at - cut)) < 2 * lib.SLOW
        stop.wait(4)
        second, later = peer(b.site, "alpha")["lag_in_s"], time.monotonic()
        assert abs((second - first) - (later - at)) < 1 * lib.SLOW
        assert abs(second - (later - cut)) < 2 * lib.SLOW
    finally:
        stop.set()
        t.join()
    world.heal()
    lib.converge(a, b)
    lib.eventually(lambda: peer(b.site, "alpha")["lag_in_s"] < 0.2, 20, "lag is gone")


def test_metrics_are_those_that_are_documented(two, tmp_path):
    world, a, b = two
    lib.converge(a, b)
    lib.eventually(lambda: "claudefs_lag_seconds" in fetch(url(a.site) + "metrics"), 30, "metrics")
    text = fetch(url(a.site) + "metrics")
    names = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    with open(os.path.join(DOCS, "metrics.md"), encoding="utf-8") as f:
        documented = set(re.findall(r"^\| `(\w+)`", f.read(), re.M))
    assert names == documented
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(
            r'[a-z_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? \S+', line), line
    # The files in docs/ ask for nothing that is not there, in words that Prometheus understands.
    with open(os.path.join(DOCS, "claudefs-grafana.json"), encoding="utf-8") as f:
        asked = [t["expr"] for p in json.load(f)["panels"] for t in p["targets"]]
    with open(os.path.join(DOCS, "claudefs-alerts.yml"), encoding="utf-8") as f:
        rules = re.findall(r"expr: (.*)", f.read())
    for name in re.findall(r"\bclaudefs_\w+", " ".join(asked + rules)):
        assert re.sub("_bucket$", "", name) in names, name
    if not lib.shutil.which("promtool"):
        pytest.skip("promtool is not installed: the format was checked by this test only")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lib.run("promtool", "check", "rules", os.path.join(DOCS, "claudefs-alerts.yml"))
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": [
        {"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(asked)]}]}))
    lib.run("promtool", "check", "rules", panels)


@pytest.mark.nofuse
def test_who_may_see_it(world):
    host, port = world.free_address()
    site = world.site("alpha", serve=False)
    # Elsewhere than on loopback a token is needed, and the daemon says so before it begins.
    conf = os.path.join(site.dir, "site.conf")
    with open(conf, encoding="utf-8") as f:
        text = f.read()
    with open(conf, "w", encoding="utf-8") as f:
        f.write(re.sub(r"^http = .*$", f"http = 0.0.0.0:{port}", text, flags=re.M))
    refused = lib.run(lib.PROGRAM, "serve", "--dir", site.dir, check=False, timeout=20)
    assert refused.returncode != 0 and "dashboard token" in refused.stderr, refused.stderr
    token = site.cli("dashboard", "token").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", token) and site.cli("dashboard", "token").stdout.strip() == token
    site.serve()
    at = f"http://{host}:{port}/"
    assert code_of(at) == 401 and code_of(at + "metrics") == 401 and code_of(at + "events") == 401
    assert code_of(at, Authorization=f"Bearer {'0' * 64}") == 401
    assert code_of(at, Authorization=f"Bearer {token}") == 200
    assert code_of(at, Cookie=f"claudefs_token={token}") == 200
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(f"{at}?token={token}", timeout=20) as r:  # once; then by the cookie
        assert r.status == 200 and token not in r.url
    with opener.open(at + "api/status", timeout=20) as r:
        assert json.load(r)["name"] == "alpha"


@pytest.mark.nofuse
def test_bad_clients(world):
    site = world.site("alpha")
    at = url(site)
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)/", at).groups()

    def raw(data, wait=5):
        with socket.create_connection((host, int(port)), 10) as s:
            s.settimeout(wait)
            s.sendall(data)
            got = b""
            try:
                while chunk := s.recv(65536):
                    got += chunk
            except OSError:
                pass  # closed in our face is an answer, too
            return got
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = raw(f"{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc".encode(), 1)
        assert b" 405 " in answer.split(b"\r\n")[0], (method, answer[:100])
    for path in ("/../site.key", "/%2e%2e/site.key", "//etc/passwd", "/api/status/../../site.key",
                 "/site.conf", "/" + "a" * 9000, "/\x01"):
        assert b"200" not in raw(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())[:16], path
    assert code_of(at + "api/history") == 400 and code_of(at + "api/history?peer=x&grain=0") == 404
    assert code_of(at + "api/history?peer=alpha&grain=99999999999") == 400
    assert code_of(at, Host="evil.example") == 403
    assert b"200" not in raw(b"GET / HTTP/1.0\r\nX: " + b"y" * 200_000 + b"\r\n\r\n")[:16]
    for n in range(40):
        raw(world.random.randbytes(200 + n * 50), 0.05)
    slow = [socket.create_connection((host, int(port)), 10) for _ in range(300)]
    for s in slow:
        s.sendall(b"GET / HT")  # and nothing more
    assert code_of(at + "healthz") == 200  # others are served meanwhile
    for s in slow:
        s.close()
    assert code_of(at) == 200 and site.alive()


@pytest.mark.limit(300)
def test_many_viewers_cost_little(two):
    """200 event streams and a scrape each second: little processor time, and all get the news."""
    world, a, b = two
    lib.converge(a, b)
    at = url(a.site)
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)/", at).groups()
    viewers = []
    for _ in range(200):
        s = socket.create_connection((host, int(port)), 10)
        s.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        viewers.append(s)
    total = [0] * len(viewers)
    stop = threading.Event()

    def drain():
        for s in viewers:
            s.setblocking(False)
        while not stop.wait(0.2):
            for i, s in enumerate(viewers):
                try:
                    total[i] += len(s.recv(1 << 20))
                except BlockingIOError:
                    pass
    t = threading.Thread(target=drain)
    t.start()
    try:
        stop.wait(2)

        def cpu():
            with open(f"/proc/{a.site.process.pid}/stat", encoding="ascii") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        before, began = cpu(), time.monotonic()
        for _ in range(8):
            fetch(at + "metrics")
            stop.wait(1)
        share = (cpu() - before) / (time.monotonic() - began)
        print(f"200 viewers and a scrape a second: {100 * share:.1f} % of a core")
        assert share < 0.2 * lib.SLOW, share
    finally:
        stop.set()
        t.join()
        for s in viewers:
            s.close()
    assert min(total) > 10_000
    assert a.site.alive()
