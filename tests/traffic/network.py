"""Network namespaces of the tests' own: they live as long as their actors, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from traffic.actor import DEADLINE, Actor, TrafficError

NAME = "pytracecon-test-"
"""How everything begins that the tests put where others could see it."""


class Network:
    """A network namespace with its loopback up, and the processes in it."""

    inodes: ClassVar[set[int]] = set()
    """Of all namespaces that the tests made."""

    def __init__(self, program: Path) -> None:
        self.root = Actor.start(program, "root")
        self.root.do("unshare")
        self.inode = os.stat(self.path).st_ino
        self.inodes.add(self.inode)

    @property
    def path(self) -> str:
        return f"/proc/{self.root.pid}/ns/net"

    def actor(self, name: str) -> Actor:
        """A process in this namespace."""
        actor = self.root.fork(name)
        actor.netns = self.inode
        return actor

    def run(self, *command: str) -> None:
        """A command of the host, run inside."""
        subprocess.run(["nsenter", f"--net={self.path}", *command], check=True)

    def ip(self, *lines: str) -> None:
        """Run the ip command, with one line for each."""
        with os.fdopen(os.memfd_create("lines"), "w+") as batch:
            batch.write("\n".join(lines) + "\n")
            batch.flush()
            batch.seek(0)
            if self.root.do("run", "ip", "-batch", "-", fd=batch.fileno()).result != 0:
                raise TrafficError(f"ip failed: {lines}")

    def sysctl(self, name: str, *values: object) -> None:
        self.root.do("write", f"/proc/sys/{name.replace('.', '/')}", *values)

    def counted(self, group: str, name: str) -> int:
        """One of the counters that this namespace has in /proc/net/netstat, all its sockets together."""
        names, values = (
            line.split()
            for line in Path(f"/proc/{self.root.pid}/net/netstat").read_text().splitlines()
            if line.startswith(f"{group}:")
        )
        return int(values[names.index(name)])

    def await_counted(self, group: str, name: str, count: int) -> None:
        """Until the counter is there: nothing tells of it, so look again."""
        deadline = time.monotonic() + DEADLINE
        while self.counted(group, name) < count:
            if time.monotonic() > deadline:
                raise TrafficError(f"{name} does not get to {count}")
            time.sleep(0.005)

    @property
    def syns_resent(self) -> int:
        """How often this namespace sent a SYN again."""
        return self.counted("TcpExt", "TCPSynRetrans")

    def wire(self, other: Network, here: str, there: str) -> None:
        """A veth pair to another namespace, with these two addresses (CIDR), up when this returns."""
        end, peer = f"to{other.inode}", f"to{self.inode}"
        flags = " nodad" if ":" in here else ""
        self.ip(f"link add {end} type veth peer name {peer} netns {other.root.pid}")
        other.ip(f"address add {there} dev {peer}{flags}", f"link set {peer} up")
        self.ip(f"address add {here} dev {end}{flags}", f"link set {end} up")

    def close(self) -> None:
        self.root.dismiss()
