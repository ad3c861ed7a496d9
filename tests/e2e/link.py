"""A TCP link between two sites that a test holds in its hand: `claudefs-sim link`, see its --help.

    link = Link(target)
    link.set_latency(0.05)
    link.cut("stall")
    link.heal()

cut("stall") is a cable that is pulled: nothing arrives, nothing is refused, bytes under way are kept
and go on after heal(), as TCP would resend them. cut("reset") is a firewall that closes: every
connection breaks at once and new ones are refused until heal(). Methods return when it is done, and
may be called from any thread.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading

PROGRAM = os.path.join(
    os.path.abspath(os.environ.get("CLAUDEFS_BUILD", os.path.join(
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "build"))),
    "claudefs-sim")
ANSWER_S = 30


class Link:
    """Listens on `listen` (port 0: a free port) and forwards to `target`."""

    def __init__(self, target, listen=("127.0.0.1", 0), seed=0):
        self._lock = threading.Lock()
        self._dir = tempfile.mkdtemp(prefix="claudefs-link-")
        control = os.path.join(self._dir, "control")
        self._process = subprocess.Popen(
            [PROGRAM, "link", "%s:%d" % tuple(listen), "%s:%d" % tuple(target), "--seed", str(seed),
             "--control", control],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        said = self._process.stdout.readline()
        assert said.startswith("listening on "), f"{PROGRAM} link: {said!r}"
        host, port = said.split()[-1].rsplit(":", 1)
        self.address = (host, int(port))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(control)
        self._answers = self._socket.makefile("r", encoding="ascii")

    def say(self, line):
        """One line of the control socket; its answer. An error is a ValueError."""
        with self._lock:
            self._socket.sendall((line + "\n").encode())
            answer = self._answers.readline().strip()
        if not answer or answer.startswith("error"):
            raise ValueError(f"{line}: {answer or 'the link has ended'}")
        return answer

    @property
    def port(self):
        return self.address[1]

    @property
    def target(self):
        host, port = self.stats()["target"].rsplit(":", 1)
        return host, int(port)

    @target.setter
    def target(self, address):
        self.say("set target %s:%d" % tuple(address))

    def set_latency(self, seconds):
        """One way, for bytes read from now on."""
        self.say(f"set latency {round(seconds * 1e9)}ns")

    def set_bandwidth(self, bytes_per_second):
        """For each direction; None: as fast as it goes."""
        self.say(f"set bandwidth {f'{bytes_per_second}B/s' if bytes_per_second else 'off'}")

    def set_loss(self, percent):
        """Of the packets; TCP sends them again, later. None: no more."""
        self.say(f"set loss {f'{percent}%' if percent else 'off'}")

    def set_random_resets(self, mean_seconds):
        """Every connection lives that long on average, then breaks; None: no more."""
        self.say(f"set resets {f'{round(mean_seconds * 1e3)}ms' if mean_seconds else 'off'}")

    def set_damage(self, every_bytes):
        """Flips one bit about every so many bytes; None: no more."""
        self.say(f"set damage {f'{every_bytes}B' if every_bytes else 'off'}")

    def cut(self, how="stall", direction=""):
        """direction: "to" the target only, or "from" it; with "stall"."""
        self.say(f"cut {how} {direction}")

    def heal(self):
        self.say("heal")

    def reset(self):
        """Breaks every connection once; new ones are welcome."""
        self.say("reset")

    def stats(self):
        return json.loads(self.say("stats"))

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
        code = self._process.wait(ANSWER_S)
        self._process.stdout.close()
        self._answers.close()
        self._socket.close()
        shutil.rmtree(self._dir, ignore_errors=True)
        assert code == 0, f"{PROGRAM} link ended with {code}"
