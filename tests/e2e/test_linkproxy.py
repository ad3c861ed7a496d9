"""The link proxy itself: a test of partitions is worth what the thing that cuts is worth."""

import select
import socket
import threading
import time

import pytest

from linkproxy import LinkProxy


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
    proxy = LinkProxy(echo)
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
    assert link.stats()["to target"] == len(data)


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


def test_control_socket_obeys(echo, tmp_path):
    proxy = LinkProxy(echo, control=str(tmp_path / "control"))
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(tmp_path / "control"))
        control.settimeout(10)
        answers = control.makefile("rw")

        def command(text):
            answers.write(text + "\n")
            answers.flush()
            return answers.readline().strip()

        assert command("latency 50") == "ok" and proxy.latency == 0.05
        assert command("cut sideways").startswith("error")
        assert command("nonsense").startswith("error")
        assert command("cut reset") == "ok"
        assert command("heal") == "ok"
        assert "accepted" in command("stats")
    proxy.stop()
