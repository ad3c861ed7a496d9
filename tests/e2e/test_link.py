"""`claudefs-sim link` itself: a test of partitions is worth what the thing that cuts is worth."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

import lib
import link as linkmodule
from link import Link

pytestmark = pytest.mark.nofuse


@pytest.fixture
def echo():
    """A server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve_one(sock):
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                pass

    def serve():
        while not stop.is_set():
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve_one, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()
    stop.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


@pytest.fixture
def link(echo):
    proxy = Link(echo)
    yield proxy
    proxy.stop()


def ask(sock, data):
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        part = sock.recv(65536)
        if not part:
            break
        got += part
    return got


def test_bytes_pass(link):
    data = bytes(range(256)) * 4000
    with socket.create_connection(link.address, 10) as sock:
        thread = threading.Thread(target=sock.sendall, args=(data,))
        thread.start()
        got = b""
        while len(got) < len(data):
            got += sock.recv(65536)
        thread.join()
    assert got == data
    assert link.stats()["to"]["bytes"] == len(data)


def test_latency_is_added_each_way(link):
    link.set_latency(0.1)
    with socket.create_connection(link.address, 10) as sock:
        start = time.monotonic()
        assert ask(sock, b"x") == b"x"
        assert time.monotonic() - start >= 0.2


def test_stall_keeps_bytes(link):
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"before") == b"before"
        link.cut("stall")
        sock.sendall(b"during")
        assert select.select([sock], [], [], 0.3)[0] == []
        link.heal()
        assert sock.recv(100) == b"during"


def test_reset_breaks_and_refuses(link):
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"x") == b"x"
        link.cut("reset")
        with pytest.raises(ConnectionError):
            if sock.recv(1) == b"":
                raise ConnectionResetError
    with pytest.raises(ConnectionError):
        with socket.create_connection(link.address, 10) as sock:
            if ask(sock, b"x") != b"x":
                raise ConnectionResetError
    link.heal()
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"x") == b"x"


def test_damage_flips_single_bits(link):
    link.set_damage(1000)
    with socket.create_connection(link.address, 10) as sock:
        got = ask(sock, bytes(10000))
    flipped = sum(bin(b).count("1") for b in got)
    assert 1 <= flipped <= 200


def test_latency_is_exact(link):
    """What a benchmark over a long line needs: 80 ms are 80 ms, within what a busy machine adds."""
    link.set_latency(0.04)
    with socket.create_connection(link.address, 10) as sock:
        ask(sock, b"x")  # the handshake's round trip
        trips = []
        for _ in range(12):
            start = time.monotonic()
            assert ask(sock, b"x" * 1000) == b"x" * 1000
            trips.append(time.monotonic() - start)
    assert min(trips) >= 0.08
    assert sorted(trips)[len(trips) // 2] < 0.085, trips


def test_handshake_costs_a_round_trip(link):
    link.set_latency(0.05)
    start = time.monotonic()
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"x") == b"x"
    assert time.monotonic() - start >= 0.2


def test_bandwidth_is_shared(link):
    link.set_bandwidth(1_000_000)
    got = []
    with socket.create_connection(link.address, 10) as one, \
            socket.create_connection(link.address, 10) as other:
        start = time.monotonic()
        threads = [threading.Thread(target=lambda s=s: got.append(ask(s, bytes(200_000))))
                   for s in (one, other)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.monotonic() - start
    assert [len(g) for g in got] == [200_000, 200_000]
    assert 0.4 <= seconds < 1.2, seconds


def test_cut_of_one_direction(link):
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"x") == b"x"
        link.cut("stall", "from")
        sock.sendall(b"there")
        lib.eventually(lambda: link.stats()["to"]["bytes"] == 6, 10, "the way to the target is open")
        assert select.select([sock], [], [], 0.2)[0] == []
        link.heal()
        assert sock.recv(100) == b"there"
        link.cut("stall", "to")
        sock.sendall(b"held")
        assert select.select([sock], [], [], 0.2)[0] == []
        assert link.stats()["to"]["bytes"] == 6
        link.heal()
        assert sock.recv(100) == b"held"


def test_end_comes_behind_the_bytes(link):
    """A half-closed connection goes on the other way; nothing that was sent before is lost."""
    link.set_latency(0.05)
    data = os.urandom(500_000)
    with socket.create_connection(link.address, 10) as sock:
        thread = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        thread.start()
        got = b""
        while part := sock.recv(65536):
            got += part
        thread.join()
    assert got == data
    lib.eventually(lambda: link.stats()["open"] == 0, 10, "closed at both ends")
    assert link.stats()["broken"] == 0


def test_break_travels_and_is_held_by_a_cut(link):
    """Who dies behind a cut is missed only after it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link.target = server.getsockname()
        with socket.create_connection(link.address, 10) as sock:
            far, _ = server.accept()
            sock.sendall(b"x")
            assert far.recv(1) == b"x"
            link.cut("stall")
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
            assert select.select([sock], [], [], 0.3)[0] == []
            link.heal()
            with pytest.raises(ConnectionError):
                sock.recv(1)


def test_nobody_behind_it(link):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        link.target = free.getsockname()
    with pytest.raises(ConnectionError):  # at once, or when something is asked for
        with socket.create_connection(link.address, 10) as sock:
            if sock.recv(1) == b"":
                raise ConnectionResetError


def test_slow_reader_slows_the_sender(link):
    with socket.create_server(("127.0.0.1", 0)) as server:
        link.target = server.getsockname()
        with socket.create_connection(link.address, 10) as sock:
            far, _ = server.accept()
            sock.setblocking(False)
            sent = 0
            idle = time.monotonic()
            while time.monotonic() - idle < 0.5 and sent < 200_000_000:
                try:
                    sent += sock.send(bytes(65536))
                    idle = time.monotonic()
                except BlockingIOError:
                    select.select([], [sock], [], 0.1)
            assert sent < 60_000_000, "the link buffers without end"
            got = 0
            while got < sent:
                got += len(far.recv(1 << 20))
            far.close()


def test_mistakes_are_answered_and_change_nothing(link):
    before = link.stats()
    for line, part in (("cut sideways", "sideways"), ("nonsense", "nonsense"),
                       ("set latency 40", "unit"), ("set target nowhere.example:7", "numeric"),
                       ("set loss 200%", "large"), ("", "no command"),
                       ("x" * 1000, "257 bytes")):
        with pytest.raises(ValueError, match=part):
            link.say(line)
    assert link.stats() == before
    with socket.create_connection(link.address, 10) as sock:
        assert ask(sock, b"x") == b"x"


@pytest.mark.parametrize("args, part", [
    (["127.0.0.1:0"], "usage"),
    (["127.0.0.1:0", "127.0.0.1"], "HOST:PORT"),
    (["127.0.0.1:99999", "127.0.0.1:1"], "port"),
    (["127.0.0.1:0", "127.0.0.1:1", "--do", "set latency fast"], "fast"),
    (["127.0.0.1:0", "127.0.0.1:1", "--seed", "x"], "seed"),
    (["127.0.0.1:0", "127.0.0.1:1", "--colour", "x"], "--colour"),
    (["127.0.0.1:0", "127.0.0.1:1", "--control"], "missing"),
    (["127.0.0.1:0", "127.0.0.1:1", "more"], "more"),
])
def test_bad_command_lines(args, part):
    done = subprocess.run([linkmodule.PROGRAM, "link", *args], capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == 2 and part in done.stderr, done


def test_control_socket_that_is_taken(tmp_path):
    path = tmp_path / "control"
    path.write_text("")
    done = subprocess.run([linkmodule.PROGRAM, "link", "127.0.0.1:0", "127.0.0.1:1", "--control", path],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and str(path) in done.stderr and done.stdout == "", done


def test_lines_of_the_command_line(echo, tmp_path):
    path = tmp_path / "control"
    process = subprocess.Popen(
        [linkmodule.PROGRAM, "link", "127.0.0.1:0", "%s:%d" % echo, "--control", path,
         "--do", "set latency 40ms to", "--do", "cut from"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("listening on 127.0.0.1:")
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(path))
        control.sendall(b"sta")
        control.sendall(b"ts\nheal\n")
        answers = control.makefile()
        said = json.loads(answers.readline())
        assert said["to"]["latency_ns"] == 40_000_000 and said["from"]["latency_ns"] == 0
        assert said["from"]["cut"] and not said["to"]["cut"]
        assert answers.readline() == "ok\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and not path.exists()
