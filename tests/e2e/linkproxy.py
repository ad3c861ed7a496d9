#!/usr/bin/python3
"""A TCP link between two sites that a test holds in its hand: latency, bandwidth, cuts, damage.

In a test:                      By hand:
    link = LinkProxy(target)        linkproxy.py LISTEN TARGET [--control SOCKET]
    link.set_latency(0.05)          echo "latency 50" | nc -U SOCKET      (milliseconds)
    link.cut("stall")               echo "cut stall"  | nc -U SOCKET
    link.heal()                     echo "heal"       | nc -U SOCKET

cut("stall") is a cable that is pulled: nothing arrives, nothing is refused, bytes under way are kept
and go on after heal(), as TCP would resend them. cut("reset") is a firewall that closes: every
connection breaks at once and new ones are refused until heal().

The proxy runs an asyncio loop in a thread of its own; methods may be called from any thread.
"""

import argparse
import asyncio
import random
import socket
import struct
import sys
import threading

CHUNK = 64 * 1024
QUEUE_CHUNKS = 64  # bytes under way per direction: a sender is slowed down, not buffered without end


class _Pipe:
    """One direction of one connection: reads, delays, writes."""

    def __init__(self, link, reader, writer, direction):
        self.link, self.reader, self.writer, self.direction = link, reader, writer, direction
        self.queue = asyncio.Queue(QUEUE_CHUNKS)
        self.free_at = 0.0

    async def run(self):
        await asyncio.gather(self._take(), self._give())

    async def _take(self):
        loop = asyncio.get_running_loop()
        while True:
            data = await self.reader.read(CHUNK)
            if not data:
                await self.queue.put((loop.time(), b""))
                return
            now = loop.time()
            start = max(now, self.free_at)
            bandwidth = self.link.bandwidth
            self.free_at = start + (len(data) / bandwidth if bandwidth else 0)
            await self.queue.put((self.free_at + self.link.latency, data))

    async def _give(self):
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self.queue.get()
            while loop.time() < due:
                await asyncio.sleep(due - loop.time())
            await self.link.flowing.wait()
            if not data:
                if self.writer.can_write_eof():
                    self.writer.write_eof()
                return
            self.writer.write(self.link.damaged(data))
            self.link.bytes[self.direction] += len(data)
            await self.writer.drain()


class LinkProxy:
    """Listens on `listen` ("127.0.0.1:0": a free port) and forwards to `target`."""

    def __init__(self, target, listen=("127.0.0.1", 0), control=None, seed=0):
        self.target = tuple(target)
        self.latency = 0.0
        self.bandwidth = None
        self.bytes = {"to target": 0, "from target": 0}
        self.accepted = 0
        self.random = random.Random(seed)
        self._resets_mean = None
        self._damage_bytes = None
        self._damage_left = 0
        self._refusing = False
        self._connections = set()
        self._server = self._control_server = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="linkproxy", daemon=True)
        self._thread.start()
        self.address = self._call(self._start(tuple(listen), control))

    # ---- what a test calls ----
    @property
    def port(self):
        return self.address[1]

    def set_latency(self, seconds):
        """One way, for bytes read from now on."""
        self.latency = seconds

    def set_bandwidth(self, bytes_per_second):
        """For each direction of each connection; None: as fast as it goes."""
        self.bandwidth = bytes_per_second

    def set_random_resets(self, mean_seconds):
        """Every connection lives that long on average, then breaks; None: no more."""
        self._resets_mean = mean_seconds

    def set_damage(self, every_bytes):
        """Flips one bit about every so many bytes; None: no more."""
        self._damage_bytes = every_bytes
        self._damage_left = self.random.randrange(1, every_bytes + 1) if every_bytes else 0

    def cut(self, how="stall"):
        if how not in ("stall", "reset"):
            raise ValueError(f"cut {how!r}: use 'stall' or 'reset'")
        self._call(self._cut(how))

    def heal(self):
        self._call(self._heal())

    def reset(self):
        """Breaks every connection once; new ones are welcome."""
        self._call(self._reset())

    def stats(self):
        return {"accepted": self.accepted, "open": len(self._connections), **self.bytes}

    def stop(self):
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    # ---- inside the loop ----
    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self, listen, control):
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._server = await asyncio.start_server(self._accept, *listen)
        if control:
            self._control_server = await asyncio.start_unix_server(self._serve_control, control)
        return self._server.sockets[0].getsockname()[:2]

    async def _accept(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        writers = [writer]
        self._connections.add(task)
        try:
            if self._refusing:
                return
            await self.flowing.wait()
            to_reader, to_writer = await asyncio.open_connection(*self.target)
            writers.append(to_writer)
            work = [_Pipe(self, reader, to_writer, "to target").run(),
                    _Pipe(self, to_reader, writer, "from target").run()]
            await asyncio.wait_for(asyncio.gather(*work), self._lifetime())
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            for w in writers:
                self._break(w)

    def _lifetime(self):
        return self.random.expovariate(1 / self._resets_mean) if self._resets_mean else None

    @staticmethod
    def _break(writer):
        """Closes with a reset: the other side learns at once and nothing lingers."""
        sock = writer.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        writer.transport.abort()

    def damaged(self, data):
        if not self._damage_bytes:
            return data
        if self._damage_left > len(data):
            self._damage_left -= len(data)
            return data
        out = bytearray(data)
        out[self._damage_left - 1] ^= 1 << self.random.randrange(8)
        self._damage_left = self.random.randrange(1, self._damage_bytes + 1)
        return bytes(out)

    async def _reset(self):
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self, how):
        if how == "stall":
            self.flowing.clear()
        else:
            self._refusing = True
            await self._reset()

    async def _heal(self):
        self._refusing = False
        self.flowing.set()

    async def _stop(self):
        for server in (self._server, self._control_server):
            if server:
                server.close()
        self.flowing.set()
        await self._reset()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve_control(self, reader, writer):
        while line := await reader.readline():
            writer.write((await self._command(line.decode(errors="replace").split()) + "\n").encode())
            await writer.drain()
        writer.close()

    async def _command(self, words):
        try:
            verb, args = words[0], words[1:]
            number = (lambda scale: None if args[0] == "off" else float(args[0]) * scale)
            if verb == "latency":
                self.latency = number(0.001) or 0.0
            elif verb == "bandwidth":
                self.bandwidth = number(1)
            elif verb == "resets":
                self._resets_mean = number(1)
            elif verb == "damage":
                self.set_damage(None if args[0] == "off" else int(args[0]))
            elif verb == "cut":
                if args[:1] not in (["stall"], ["reset"]):
                    return "error: cut stall, or cut reset"
                await self._cut(args[0])
            elif verb == "heal":
                await self._heal()
            elif verb == "reset":
                await self._reset()
            elif verb == "stats":
                return repr(self.stats())
            else:
                return "error: latency MS|bandwidth BYTES|resets S|damage BYTES|cut stall|" \
                       "cut reset|heal|reset|stats"
        except (IndexError, ValueError) as e:
            return f"error: {e}"
        return "ok"


def _address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("listen", type=_address)
    parser.add_argument("target", type=_address)
    parser.add_argument("--control", metavar="SOCKET", help="Unix socket for commands")
    args = parser.parse_args()
    link = LinkProxy(args.target, args.listen, args.control)
    print("listening on %s:%d" % link.address, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        link.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
