"""A real browser for tests: Chromium without a window, driven by WebDriver over HTTP (the standard
library is enough for that)."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", "--force-device-scale-factor=1"]


def why_none():
    missing = [p for p in ("chromium", "chromedriver") if not shutil.which(p)]
    return f"not installed: {', '.join(missing)}" if missing else None


class Browser:
    def __init__(self, width, height, dark):
        self.profile = tempfile.mkdtemp(prefix="claudefs-browser-")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.process = subprocess.Popen(["chromedriver", f"--port={port}"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        self.session = None
        end = time.monotonic() + 30
        while True:
            try:
                self._call("GET", "/status")
                break
            except OSError:
                if time.monotonic() > end:
                    self.close()
                    raise
                time.sleep(0.05)
        options = {"binary": shutil.which("chromium"), "args":
                   ARGUMENTS + [f"--user-data-dir={self.profile}",
                                f"--window-size={width},{height}"]}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = answer["sessionId"]
        self.look(width, height, dark)

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                return json.load(r)["value"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{path}: {e.read().decode(errors='replace')[:600]}") from None

    def _do(self, method, path, body=None):
        return self._call(method, f"/session/{self.session}{path}", body)

    def cdp(self, command, **parameters):
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, width, height, dark):
        """As that screen would show it; the page is told as it would be by a person's device."""
        self.cdp("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 600)

    def names(self):
        """(role, name) of all that a screen reader stops at."""
        nodes = self.cdp("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes
                if not n["ignored"] and "role" in n]

    def press(self, key, code):
        for kind in "rawKeyDown", "keyUp":
            self.cdp("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=code)

    def open(self, url):
        self._do("POST", "/url", {"url": url})

    def script(self, text, *args):
        return self._do("POST", "/execute/sync", {"script": text, "args": list(args)})

    def text(self, css):
        """What a person reads there."""
        return self.script("const e = document.querySelector(arguments[0]);"
                           "return e ? e.innerText : null", css)

    def screenshot(self, path):
        """The whole page, however long."""
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, format="png",
                        clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"],
                              "scale": 1})
        with open(path, "wb") as f:
            f.write(base64.b64decode(shot["data"]))

    def complaints(self):
        """What the page's scripts and the security policy complained of."""
        return [x["message"] for x in self._do("POST", "/se/log", {"type": "browser"})
                if x["level"] == "SEVERE"]

    def close(self):
        if self.session:
            try:
                self._do("DELETE", "")
            except (OSError, AssertionError):
                pass  # the driver is ended below, and its browser with it
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.profile, ignore_errors=True)
