"""MooseFS on this machine: a master, one chunk server, one mount, as processes of this benchmark with all
their files in its directory. One copy of everything, as our one node has; what they do with the
disk is their default: changes of names go to a log in the background and are not synced, and an
fsync of a file is not one on the chunk server's disk."""

import os
import shutil
import socket
import subprocess

EXPORTS = "*  /  rw,alldirs,admin,maproot=0:0\n*  .  rw\n"


class MooseFS:
    @staticmethod
    def why_not():
        missing = [p for p in ("mfsmaster", "mfschunkserver", "mfsmount") if not shutil.which(p)]
        if missing:
            return ("not installed: apt-get install moosefs-master moosefs-chunkserver "
                    "moosefs-client")
        return "it has to be run by root" if os.geteuid() != 0 else None

    def __init__(self, world, until):
        self.dir = world.path("moosefs")
        self.at = world.path("moosefs-mnt")
        for name in "master", "chunks", "disk":
            os.mkdir(os.path.join(self.dir, name))
        self.host = self._own_address()
        ports = self._free_ports(4)
        self._write("exports.cfg", EXPORTS)
        self._write("topology.cfg", "")
        self._write("hdd.cfg", os.path.join(self.dir, "disk") + "\n")
        shutil.copy("/var/lib/mfs/metadata.mfs.empty", os.path.join(self.dir, "master/metadata.mfs"))
        self._config("master", DATA_PATH="master", EXPORTS_FILENAME="exports.cfg",
                     TOPOLOGY_FILENAME="topology.cfg", MATOML_LISTEN_PORT=ports[0],
                     MATOCS_LISTEN_PORT=ports[1], MATOCL_LISTEN_PORT=ports[2],
                     **{f"{who}_LISTEN_HOST": self.host for who in ("MATOML", "MATOCS", "MATOCL")})
        self._config("chunkserver", DATA_PATH="chunks", HDD_CONF_FILENAME="hdd.cfg",
                     MASTER_HOST=self.host, MASTER_PORT=ports[1], CSSERV_LISTEN_PORT=ports[3],
                     CSSERV_LISTEN_HOST=self.host, BIND_HOST=self.host,
                     MASTER_RECONNECTION_DELAY=1)
        for name in "master", "chunkserver":
            process = world.spawn([f"mfs{name}", "-c", os.path.join(self.dir, f"{name}.cfg"), "-f",
                                   "start"], f"moosefs-{name}.log")
        mount = ["mfsmount", "-H", self.host, "-P", str(ports[2]), "-o", "mfsnice=0", self.at]
        world.ending.callback(subprocess.run, ["fusermount3", "-u", "-z", self.at], check=False)

        def usable():
            world.alive(process)
            subprocess.run(mount, capture_output=True, check=False)
            return os.path.ismount(self.at) and self._takes_data()
        until(usable, "MooseFS takes data")
        quiet = " ".join(mount) + " >/dev/null 2>&1"
        self.remount = f"fusermount3 -u {self.at} && {quiet}"
        # One copy: there is one chunk server.
        subprocess.run(["mfssetgoal", "-r", "1", self.at], capture_output=True, check=True)

    @staticmethod
    def _own_address():
        """A chunk server refuses 127.0.0.1. To an address of its own the kernel sends over loopback
        as well."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("192.0.2.1", 9))  # nothing is sent
            return s.getsockname()[0]

    def _free_ports(self, count):
        sockets = [socket.socket() for _ in range(count)]
        for s in sockets:
            s.bind((self.host, 0))
        ports = [s.getsockname()[1] for s in sockets]
        for s in sockets:
            s.close()
        return ports

    def _write(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="ascii") as f:
            f.write(text)

    def _config(self, name, **settings):
        paths = ("DATA_PATH", "EXPORTS_FILENAME", "TOPOLOGY_FILENAME", "HDD_CONF_FILENAME")
        settings = {**settings, "WORKING_USER": "root", "WORKING_GROUP": "root", "NICE_LEVEL": 0,
                    "SYSLOG_IDENT": f"bench-mfs{name}"}
        for key in paths:
            if key in settings:
                settings[key] = os.path.join(self.dir, settings[key])
        self._write(f"{name}.cfg", "".join(f"{k} = {v}\n" for k, v in settings.items()))

    def _takes_data(self):
        path = os.path.join(self.at, "probe")
        try:
            with open(path, "wb") as f:
                f.write(b"x")
                os.fsync(f.fileno())
            os.unlink(path)
            return True
        except OSError:
            return False
