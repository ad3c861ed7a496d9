"""What is broken, forged, full or forbidden gives a clear error each; no daemon dies of it, nothing
is lost (P9)."""

import errno
import glob
import json
import os
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import typing

import pytest

import lib
from lib import eventually, run


def fill(mount, count=200):
    for n in range(count):
        mount.write(f"d{n % 7}/f{n}", bytes([n % 256]) * (n * 40), sync=n % 20 == 0)
    os.sync()


def filled(mount, count=200):
    for n in range(count):
        assert mount.read(f"d{n % 7}/f{n}") == bytes([n % 256]) * (n * 40), n


def ends_with_error(site, *words):
    """The daemon does not start, and its last line names all of `words`."""
    site.serve(wait=False)
    code = site.world.join(site.process)
    site.process = None
    said = site.log()[-4000:]
    assert code not in (0, 1, 2) and code > 0, f"exit status {code}: {said}"
    last = [x for x in said.splitlines() if x.startswith("claudefs: ")]
    assert last, said
    for word in words:
        assert word in last[-1], f"{word!r} is not in: {last[-1]}"
    return code


# ---- damaged files ----
def journal(site):
    """The journal segment with the most in it."""
    found = glob.glob(os.path.join(site.dir, "shard-*/journal/*.seg"))
    assert found
    return max(found, key=journal_end)


def journal_end(path):
    with open(path, "rb") as f:
        return len(f.read().rstrip(b"\0"))


def flip(path, offset, count=8):
    """Damages bytes; returns how to mend them."""
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(count)
        f.seek(offset)
        f.write(bytes(x ^ 0xff for x in old))

    def mend():
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(old)
    return mend


class Record(typing.NamedTuple):
    """A record of a journal's segment, as journal/README.md describes it."""
    index: int
    at: int  # its first byte in the file
    end: int  # behind its last
    durable: int  # the last index that was durable when it was written
    epoch: int


RECORD_HEAD = struct.Struct("<IIIIQQ")  # checksum, length, segment, index - durable, index, epoch
BLOCK = 4096


def block_up(at):
    return -(-at // BLOCK) * BLOCK


def records(path):
    """All records of a segment that was never recycled: behind the last there is nothing."""
    with open(path, "rb") as f:
        data = f.read()
    found, at = [], BLOCK
    while at + RECORD_HEAD.size <= len(data):
        _, length, _, behind, index, epoch = RECORD_HEAD.unpack_from(data, at)
        if length == 0 and at % BLOCK == 0:
            break
        if length == 0:  # the rest of a write's last block
            at = block_up(at)
            continue
        end = at + -(-(RECORD_HEAD.size + length) // 8) * 8
        assert not found or index == found[-1].index + 1, f"{path}: {found[-1]}, then {index}"
        found.append(Record(index, at, end, index - behind, epoch))
        at = end
    assert found, path
    return found


def offset_in(path, part):
    if part == "head":
        return 4
    if part == "middle":
        return journal_end(path) // 2
    # The tail: the last of those records of which a later one says that they are durable.
    found = records(path)
    return next(r for r in found if r.index == found[-1].durable).at + RECORD_HEAD.size


@pytest.mark.limit(300)
@pytest.mark.parametrize("part", ["head", "middle", "tail"])
def test_damaged_journal_is_refused_and_nothing_lost(world, part):
    site = world.site("alpha", shards=1)
    a = site.mount()
    fill(a)
    a.stop()
    site.kill()
    path = journal(site)
    mend = flip(path, offset_in(path, part), 1 if part == "tail" else 8)
    code = ends_with_error(site, os.path.basename(path))
    assert code == 6
    done = site.cli("fsck", check=False)
    assert done.returncode != 0 and os.path.basename(path) in done.stderr + done.stdout
    mend()
    site.serve()
    a.start()
    filled(a)
    site.fsck()


def torn_tails(site):
    """How often it said that it has cut a torn tail."""
    said = r" site journal_torn_tail shard=0 file=\d+\.seg bytes=\d+$"
    return len(re.findall(said, site.log(), re.MULTILINE))


@pytest.mark.limit(300)
def test_half_a_record_at_the_end_of_a_journal_is_cut_and_nothing_lost(world):
    """What a power cut leaves of a write that nobody was told of."""
    site = world.site("alpha", shards=1)
    a = site.mount()
    fill(a)
    a.stop()
    site.kill()
    path = journal(site)
    last = records(path)[-1]
    number = int(os.path.basename(path).split(".")[0])
    with open(path, "r+b") as f:
        f.seek(block_up(last.end))
        f.write(RECORD_HEAD.pack(0x7042, 3000, number, 1, last.index + 1, last.epoch) +
                random.Random(3).randbytes(1200))
    site.serve()
    assert torn_tails(site) == 1, site.log()
    a.start()
    filled(a)
    a.write("afterwards", "x", sync=True)
    a.stop()
    site.kill()
    site.serve()  # what was cut does not come back
    assert torn_tails(site) == 1, site.log()
    a.start()
    filled(a)
    assert a.text("afterwards") == "x"
    site.fsck()


@pytest.mark.limit(300)
def test_last_record_of_a_journal_gone_bad_is_cut_and_said(world):
    """Nothing on the disk tells it from a torn write: at most that one record is gone."""
    site = world.site("alpha", shards=1)
    a = site.mount()
    fill(a)
    a.write("last", "written last", sync=True)
    site.kill()
    a.kill()
    path = journal(site)
    flip(path, records(path)[-1].at + RECORD_HEAD.size, 1)
    site.serve()
    assert torn_tails(site) == 1, site.log()
    a.start()
    filled(a)
    assert a.names() == sorted({f"d{n}" for n in range(7)} | {"last"}) and a.read("last") == b""
    a.write("last", "written again", sync=True)
    site.kill()
    site.serve()
    assert torn_tails(site) == 1 and a.text("last") == "written again"
    site.fsck()


def chunk_files(site):
    return [p for p in glob.glob(os.path.join(site.dir, "chunks/segments/*"))
            if os.path.getsize(p) > 0]


def damage_all_chunks(site, every=20000):
    for path in chunk_files(site):
        with open(path, "rb") as f:
            end = len(f.read().rstrip(b"\0"))
        for offset in range(every // 2, end, every):
            flip(path, offset, 4)


@pytest.mark.limit(300)
def test_damaged_chunk_is_an_error_not_wrong_data(world):
    site = world.site("alpha")
    a = site.mount()
    data = os.urandom(400_000)
    a.write("large", data, sync=True)
    a.write("small", "inline", sync=True)
    a.stop()
    site.stop()
    damage_all_chunks(site)
    site.serve()
    a.start()
    with pytest.raises(OSError) as e:
        a.read("large")
    assert e.value.errno in (errno.EIO, errno.EHOSTUNREACH)  # no other site has it either
    assert a.text("small") == "inline"
    a.write("large", "replaced")
    assert a.text("large") == "replaced"
    assert site.alive()


@pytest.mark.limit(300)
def test_fsck_reads_every_chunk(world):
    """Whole: clean, with all bytes read. Damaged: the file is named, with and without the daemon; a
    file that is not hurt is not. --quick does not read."""
    site = world.site("alpha")
    a = site.mount()
    os.mkdir(a / "dir")
    a.write("dir/hurt", os.urandom(3_000_000), sync=True)
    a.write("zeros", b"\0" * 1_000_000, sync=True)
    a.write("small", "inline", sync=True)
    whole = json.loads(site.cli("fsck", "--json").stdout)
    assert whole["clean"] and whole["contents"]["bytes"] >= 3_000_000, whole
    a.stop()
    site.stop()
    assert "clean" in site.cli("fsck").stdout
    damage_all_chunks(site)
    offline = site.cli("fsck", check=False)
    assert offline.returncode == 1 and "/dir/hurt" in offline.stdout, offline.stdout
    site.serve()
    online = json.loads(site.cli("fsck", "--json", check=False).stdout)
    assert not online["clean"] and online["problems"], online
    assert all("/dir/hurt" in p and "chunk" in p for p in online["problems"]), online
    assert json.loads(site.cli("fsck", "--quick", "--json", check=False).stdout)[
        "contents"]["bytes"] < 1_000_000
    assert site.alive()


@pytest.mark.limit(300)
def test_fsck_repairs_from_the_peer(two):
    world, a, b = two
    data = os.urandom(3_000_000)
    a.write("large", data, sync=True)
    lib.converge(a, b)
    assert b.read("large") == data
    a.stop()
    a.site.stop()
    damage_all_chunks(a.site)
    a.site.serve()
    a.site.wait()
    done = a.site.cli("fsck", "--repair")
    assert done.stdout.endswith("clean\n"), done.stdout
    b.site.stop()
    a.start()
    assert a.read("large") == data


@pytest.mark.limit(300)
def test_damaged_chunk_is_fetched_from_the_peer(two):
    world, a, b = two
    data = os.urandom(400_000)
    a.write("large", data, sync=True)
    lib.converge(a, b)
    assert b.read("large") == data
    a.stop()
    a.site.stop()
    damage_all_chunks(a.site)
    a.site.serve()
    a.start()
    assert eventually(lambda: a.read("large"), 60, "large, from beta") == data


@pytest.mark.nofuse
@pytest.mark.parametrize("name, content", [
    ("site.conf", b"\0\xff\xfe rubbish"), ("site.conf", b""), ("site.conf", b"[site]\nname = a/b\n"),
    ("site.key", b"short"), ("site.key", b"")])
def test_damaged_small_file_is_named(world, name, content):
    site = world.site("alpha", serve=False)
    path = os.path.join(site.dir, name)
    with open(path, "rb") as f:
        good = f.read()
    with open(path, "wb") as f:
        f.write(content)
    ends_with_error(site, name)
    with open(path, "wb") as f:
        f.write(good)
    site.serve()


# ---- garbage on the ports ----
def garbage(draw):
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 5000))
    if kind == 1:  # a frame header with a length out of bounds
        return b"CFR1" + draw.randbytes(12) + b"\xff" * 16
    if kind == 2:
        return b"CFR1" + bytes(28)
    if kind == 3:
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + draw.randbytes(300)
    return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.limit(300)
def test_garbage_on_every_port(world):
    site = world.site("alpha")
    a = site.mount()
    a.write("f", "before")
    draw = random.Random(1)
    unix = os.path.join(site.dir, "sock")
    held = []
    for n in range(120):
        s = socket.socket(*((socket.AF_UNIX,) if n % 2 else ()))
        s.settimeout(10)
        s.connect(unix if n % 2 else site.wan)
        try:
            s.sendall(garbage(draw))
            if n % 3 == 0:
                s.shutdown(socket.SHUT_WR)
                s.recv(1000)
        except OSError:
            pass
        if n % 4 == 0:
            held.append(s)  # and says nothing more
        else:
            s.close()
    assert a.text("f") == "before"
    a.write("g", "after")
    assert site.status()["name"] == "alpha"
    for s in held:
        s.close()
    assert site.alive()


@pytest.mark.nofuse
def test_truncated_frames_of_a_real_client(world):
    """What a mount or command says, cut off after every number of bytes and with a bit flipped."""
    site = world.site("alpha")
    unix, middle = os.path.join(site.dir, "sock"), os.path.join(world.dir, "middle")
    recorded = record_client(site, unix, middle)
    assert recorded
    draw = random.Random(2)
    for n in range(150):
        data = bytearray(recorded[:draw.randrange(1, len(recorded) + 1)])
        if n % 2:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(unix)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(10000):
                    pass
            except OSError:
                pass
    assert site.alive() and site.status()["name"] == "alpha"


def record_client(site, unix, middle):
    """The bytes that `claudefs status` sends, caught between it and the daemon."""
    heard = bytearray()
    real = unix + ".real"
    server = socket.socket(socket.AF_UNIX)
    os.rename(unix, real)
    try:
        server.bind(unix)
        server.listen()

        def pump(source, to, keep):
            try:
                while data := source.recv(65536):
                    if keep:
                        heard.extend(data)
                    to.sendall(data)
                to.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def serve():
            client, _ = server.accept()
            with client, socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(real)
                back = threading.Thread(target=pump, args=(daemon, client, False))
                back.start()
                pump(client, daemon, True)
                back.join()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        site.cli("peer", "list")
        thread.join(30)
    finally:
        server.close()
        if os.path.exists(unix):
            os.unlink(unix)
        os.rename(real, unix)
    return bytes(heard)


# ---- who may what ----
def certificate(folder):
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    run("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj",
        "/CN=stranger", "-keyout", key, "-out", cert)
    return cert, key


def asked_of(site, own, method, path):
    """What the site answers to a request with the certificate and key `own`: (status, body), status 0
    when no connection is made."""
    host, port = site.wan
    out = os.path.join(site.world.dir, "answer")
    open(out, "wb").close()
    cert = ["--cert", own[0], "--key", own[1]] if own else []
    done = run("curl", "--silent", "--insecure", "--http2", "--max-time", "20", *cert, "--request", method,
               *(["--data", ""] if method == "POST" else []), "--output", out, "--write-out", "%{http_code}",
               f"https://{host}:{port}{path}", check=False)
    with open(out, "rb") as f:
        return int(done.stdout), f.read()


@pytest.mark.nofuse
def test_who_is_no_member_is_answered_nothing(world):
    alpha, beta = world.two()
    member = [os.path.join(beta.dir, name) for name in ("wan.crt", "wan.key")]
    chunk, snapshot = "/v1/chunk/" + 64 * "0", "/v1/snapshot/past"
    assert asked_of(alpha, member, "GET", chunk)[0] == 404  # asked by one who may
    status, body = asked_of(alpha, member, "GET", snapshot)
    assert status == 200 and len(body) > 100

    def refused(own, expected):
        for method, path in ("GET", chunk), ("GET", snapshot), ("POST", "/v1/stream"):
            status, body = asked_of(alpha, own, method, path)
            assert status == expected and len(body) < 200 and b"alpha" not in body, (path, body)
    refused(None, 0)
    refused(certificate(world.dir), 403)
    alpha.cli("peer", "remove", "beta")
    lib.eventually(lambda: asked_of(alpha, member, "GET", snapshot)[0] == 403, what="beta is out")
    refused(member, 403)
    assert alpha.alive() and alpha.status()["name"] == "alpha"


@pytest.mark.nofuse
def test_sites_speak_tls_1_3_and_nothing_older(world):
    """With the right certificate, too: no older handshake is completed."""
    alpha, beta = world.two()
    member = [os.path.join(beta.dir, name) for name in ("wan.crt", "wan.key")]
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(*member)
        with socket.create_connection(alpha.wan, 10) as raw:
            if version == ssl.TLSVersion.TLSv1_3:
                with context.wrap_socket(raw) as s:
                    assert s.version() == "TLSv1.3" and s.selected_alpn_protocol() == "h2"
                continue
            with pytest.raises(ssl.SSLError) as e:
                context.wrap_socket(raw)
            assert "PROTOCOL_VERSION" in e.value.reason, e.value
    eventually(lambda: alpha.peers()["beta"]["state"] == "connected", 30, "beta itself is back")
    alpha.wait()


@pytest.mark.limit(200)
def test_false_server_is_not_believed(two):
    """Somebody else answers at alpha's address: beta notices, sends nothing, and says so."""
    world, a, b = two
    lib.converge(a, b)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(world.dir))
    context.set_alpn_protocols(["h2"])
    got, tries = [], []
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                raw, _ = server.accept()
            except OSError:
                return
            tries.append(1)
            try:
                with context.wrap_socket(raw, server_side=True) as s:
                    s.settimeout(5)
                    got.append(s.recv(10000))
            except (OSError, ssl.SSLError):
                pass
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    link, real = world.links[0], world.links[0].target
    before = len(b.site.log())
    link.target = server.getsockname()
    link.reset()
    b.write("secret", "for alpha only")
    eventually(lambda: len(tries) >= 2, 60, "beta dials")
    eventually(lambda: "ertificate" in b.site.log()[before:] or "AUTH" in b.site.log()[before:] or
               "prove" in b.site.log()[before:], 30, "beta says that it is not alpha")
    assert not any(got), got
    link.target = real
    link.reset()
    server.close()
    lib.converge(a, b)
    assert a.text("secret") == "for alpha only"


@pytest.mark.nofuse
def test_tokens(world):
    alpha, beta = world.site("alpha"), world.site("beta", listens=False)
    gamma = world.site("gamma", listens=False)

    def refused(site, token):
        done = site.cli("peer", "accept", token, check=False)
        assert done.returncode in (1, 4, 5), done
        assert done.stderr.startswith("claudefs: peer accept: ") and len(done.stderr) > 30, done
        return done.stderr

    refused(beta, "no-token-at-all")
    refused(beta, "")
    refused(beta, "cfs1." + "A" * 120)
    short = alpha.cli("peer", "invite", "--expires", "1").stdout.strip()
    made = time.time()
    eventually(lambda: time.time() > made + 2, 30, "the token expires")
    assert "expired" in refused(beta, short)
    token = alpha.cli("peer", "invite").stdout.strip()
    changed = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
    refused(beta, changed)
    refused(beta, token[:-3])
    refused(alpha, token)  # its own
    beta.cli("peer", "accept", token, timeout=300)
    assert set(beta.peers()) == {"alpha"}
    assert "used" in refused(gamma, token)
    assert gamma.peers() == {}
    # A site that has a tree of its own cannot take another's over.
    world.pair(alpha, gamma)
    other = world.site("other", listens=False)
    om = other.mount() if not os.environ.get("CLAUDEFS_NO_FUSE") else None
    if om:
        om.write("mine", "x")
        refused(other, alpha.cli("peer", "invite").stdout.strip())
        assert om.text("mine") == "x"


@pytest.mark.nofuse
def test_token_from_standard_input(world):
    alpha, beta = world.site("alpha"), world.site("beta", listens=False)
    token = alpha.cli("peer", "invite").stdout
    beta.cli("peer", "accept", "-", input=token, timeout=300)
    assert set(beta.peers()) == {"alpha"}


@pytest.mark.nofuse
def test_wrong_site_key_is_refused(world):
    site = world.site("alpha")
    copy = os.path.join(world.dir, "copy")
    os.mkdir(copy)
    os.symlink(os.path.join(site.dir, "sock"), os.path.join(copy, "sock"))
    with open(os.path.join(copy, "site.key"), "wb") as f:
        f.write(bytes(32))
    done = lib.claudefs("status", "--dir", copy, check=False)
    assert done.returncode == 4, done
    with open(os.path.join(copy, "site.key"), "wb") as f:
        f.write(bytes(31))
    done = lib.claudefs("status", "--dir", copy, check=False)
    assert done.returncode == 6 and "site.key" in done.stderr
    assert site.status()["name"] == "alpha"


@pytest.mark.nofuse
def test_unreadable_directory(world):
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not")
    site = world.site("alpha", serve=False)
    for command in (["serve"], ["fsck"], ["status"]):
        done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", lib.PROGRAM,
                   *command, "--dir", site.dir, check=False)
        assert done.returncode in (4, 5, 6), done
        assert done.stderr.startswith("claudefs: ") and site.dir in done.stderr, done
        assert "denied" in done.stderr or "permi" in done.stderr, done
    done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", lib.PROGRAM, "site",
               "create", "x", "--dir", os.path.join(site.dir, "x"), check=False)
    assert done.returncode in (4, 5, 6) and site.dir in done.stderr, done


@pytest.mark.nofuse
def test_directory_of_nothing(world):
    empty = os.path.join(world.dir, "empty")
    os.mkdir(empty)
    for where in (empty, os.path.join(world.dir, "missing")):
        for command in (["serve"], ["status"], ["fsck"]):
            done = lib.claudefs(*command, "--dir", where, check=False)
            assert done.returncode == 6, done
            assert where in done.stderr and "site create" in done.stderr, done


@pytest.mark.nofuse
def test_second_daemon_on_one_directory(world):
    site = world.site("alpha")
    done = lib.claudefs("serve", "--dir", site.dir, check=False)
    assert done.returncode not in (0, 1, 2), done
    assert site.dir in done.stderr, done
    assert site.status()["name"] == "alpha"
    done = lib.claudefs("site", "create", "alpha", "--dir", site.dir, check=False)
    assert done.returncode == 5 and site.dir in done.stderr, done


@pytest.mark.nofuse
def test_port_that_is_taken(world):
    with socket.create_server((world.host, 0)) as taken:
        where = "%s:%d" % taken.getsockname()
        path = os.path.join(world.dir, "x")
        lib.claudefs("site", "create", "x", "--dir", path, "--wan", where)
        done = lib.claudefs("serve", "--dir", path, check=False)
        assert done.returncode not in (0, 1, 2), done
        assert where in done.stderr, done


# ---- full disk ----
@pytest.fixture
def small_disk(world):
    """An ext4 file system of 400 MB, on which the site's directory lies."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    image, point = os.path.join(world.dir, "disk"), os.path.join(world.dir, "alpha")
    with open(image, "wb") as f:
        f.truncate(400 << 20)
    run("mkfs.ext4", "-q", "-m", "0", image)
    os.mkdir(point)
    done = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop mounts here: {done.stderr.decode().strip()}")
    shutil.rmtree(os.path.join(point, "lost+found"))
    yield point
    # After the daemon is gone: the world ends it later than this.
    for site in world.sites:
        if site.alive():
            site.kill()
    subprocess.run(["umount", "-l", point], check=False)


@pytest.mark.limit(300)
def test_full_disk(world, small_disk):
    site = world.site("alpha", shards=1)
    a = site.mount()
    a.write("kept", "kept" * 10000, sync=True)
    os.mkdir(a / "fill")
    first = os.urandom(1 << 20)
    full = None
    for n in range(2000):
        try:
            with open(a / f"fill/{n}", "wb") as f:
                f.write(first if n == 0 else os.urandom(1 << 20))
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            full = e
            break
    assert full is not None and full.errno == errno.ENOSPC, full
    assert site.alive(), "a full disk is no reason to go"
    assert a.text("kept") == "kept" * 10000
    synced = a.read("fill/0")
    assert synced == first
    assert site.status()["name"] == "alpha"
    a.stop()
    site.restart()
    a.start()
    assert a.text("kept") == "kept" * 10000 and a.read("fill/0") == synced
    site.fsck()
    # Files can be removed; their room comes back with a garbage pass. Names and small files go on.
    shutil.rmtree(a / "fill")
    a.write("afterwards", "small", sync=True)
    site.kill()
    site.serve()
    assert a.text("afterwards") == "small" and a.text("kept") == "kept" * 10000
    assert a.names() == ["afterwards", "kept"]
    site.fsck()
