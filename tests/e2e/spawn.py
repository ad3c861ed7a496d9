"""Starts processes for a test from a process of its own, which has no file of a mount open.

A child that is forked from the test itself has, until it has closed them, all files that threads of
the test have open at that moment; and closing a file of a mount whose daemon is away waits for the
daemon. If the child was to be that daemon, everything waits for ever. So `start` asks a server,
which was forked before anything was mounted.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading


class Process:
    """As subprocess.Popen, as far as tests need it."""

    def __init__(self, server, number, pid, args):
        self.server, self.number, self.pid, self.args = server, number, pid, args
        self.returncode = None

    def poll(self):
        with self.server.changed:
            self.returncode = self.server.codes.get(self.number)
        return self.returncode

    def wait(self, timeout=None):
        with self.server.changed:
            if not self.server.changed.wait_for(lambda: self.number in self.server.codes, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            self.server.ask({"number": self.number, "signal": int(number)})

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Server:
    def __init__(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())],
                                            stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self.lock = threading.Lock()  # one question at a time
        self.changed = threading.Condition()
        self.codes, self.answer = {}, None
        self.out = ours.makefile("w", encoding="utf-8")
        self.into = ours.makefile("r", encoding="utf-8")
        threading.Thread(target=self._listen, name="spawn", daemon=True).start()

    def _listen(self):
        for line in self.into:
            said = json.loads(line)
            with self.changed:
                if "code" in said:
                    self.codes[said["number"]] = said["code"]
                else:
                    self.answer = said
                self.changed.notify_all()

    def ask(self, question):
        with self.lock:
            self.answer = None
            self.out.write(json.dumps(question) + "\n")
            self.out.flush()
            with self.changed:
                self.changed.wait_for(lambda: self.answer is not None)
                answer = self.answer
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def start(self, args, log, env, cwd):
        """The process, in a session of its own; both outputs are added to the file `log`."""
        answer = self.ask({"args": args, "log": log, "env": env, "cwd": cwd})
        return Process(self, answer["number"], answer["pid"], args)


def serve(fd):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sock = socket.socket(fileno=fd)
    lock = threading.Lock()
    running = {}  # by number: pids are used again
    numbers = itertools.count()

    def say(what):
        with lock:
            sock.sendall(json.dumps(what).encode() + b"\n")

    def await_end(number, process):
        # The pid stays taken until nobody can send it a signal any more.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with lock:
            code = process.wait()
            del running[number]
        say({"number": number, "code": code})

    def act(question):
        if "signal" in question:
            with lock:
                if question["number"] in running:
                    os.kill(running[question["number"]].pid, question["signal"])
            return {}
        with open(question["log"], "ab") as log:
            process = subprocess.Popen(question["args"], stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env=question["env"], cwd=question["cwd"],
                                       start_new_session=True)
        number = next(numbers)
        with lock:
            running[number] = process
        threading.Thread(target=await_end, args=[number, process], daemon=True).start()
        return {"number": number, "pid": process.pid}

    for line in sock.makefile("r", encoding="utf-8"):
        try:
            say(act(json.loads(line)))
        except OSError as e:
            say({"error": str(e)})


if __name__ == "__main__":
    serve(int(sys.argv[1]))
