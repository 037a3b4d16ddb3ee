"""A network namespace with names: resolvers of its own, and an /etc that points the C libraries in it to them.

No question leaves the namespace: there is nothing but its loopback.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from traffic.actor import DEADLINE, Actor, TrafficError
from traffic.answers import NameServer
from traffic.end import listen
from traffic.network import Network

DNSMASQ, SCRIPTED = "127.0.0.1", "127.0.0.2"
"""Where the two servers are. dnsmasq asks the other one for all below scripted.test."""

COPIED = ("passwd", "group", "services", "protocols", "ld.so.cache")

HOSTS = """\
127.0.0.1 localhost
127.0.0.20 filed.example alias.example
"""

RESOLV_CONF = f"nameserver {DNSMASQ}\nsearch corp.test\noptions timeout:2 attempts:1\n"

MANY = tuple(f"127.0.1.{last}" for last in range(1, 31))
HUGE = tuple(f"127.0.{third}.{last}" for third in (2, 3) for last in range(1, 201))

RECORDS = f"""\
local=/test/
server=/scripted.test/{SCRIPTED}
host-record=one.test,127.0.0.11
host-record=two.test,127.0.0.12
host-record=both.test,127.0.0.13,fd00:7::13
host-record=six.test,fd00:7::16
host-record=shared-a.test,127.0.0.14
host-record=shared-b.test,127.0.0.14
cname=www.chain.test,middle.chain.test
cname=middle.chain.test,end.chain.test
host-record=end.chain.test,127.0.0.15
host-record=intra.corp.test,127.0.0.16
host-record=brief.test,127.0.0.17,2
local-ttl=300
"""


class Dnsmasq:
    """dnsmasq on port 53 of the namespace's loopback, both families."""

    def __init__(self, network: Network, folder: Path) -> None:
        hosts = [
            f"{addr} {name}" for name, all_addr in {"many.test": MANY, "huge.test": HUGE}.items() for addr in all_addr
        ]
        (folder / "addn-hosts").write_text("\n".join(hosts) + "\n")
        (folder / "dnsmasq.conf").write_text(f"{RECORDS}addn-hosts={folder}/addn-hosts\n")
        options = ["--no-daemon", "--no-hosts", "--no-resolv", "--user=root", "--pid-file", "--edns-packet-max=8192"]
        options += ["--bind-interfaces", f"--listen-address={DNSMASQ}", "--listen-address=::1", "--cache-size=1000"]
        command = ["nsenter", f"--net={network.path}", "dnsmasq", *options, f"--conf-file={folder}/dnsmasq.conf"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        said: list[str] = []
        while not said or "started" not in said[-1]:
            said.append(self.process.stderr.readline())
            if not said[-1]:
                raise TrafficError(f"dnsmasq ended: {''.join(said)}")

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE)


class Place(Network):
    """The namespace. Its actors have these names; `web` listens on one port of every address, of both families."""

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(program)
        self._open = ExitStack()
        self._open.callback(super().close)
        self._folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir()
        for name in COPIED:
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), self.etc)
        (self.etc / "hosts").write_text(HOSTS)
        (self.etc / "nsswitch.conf").write_text("hosts: files dns\n")
        (self.etc / "resolv.conf").write_text(RESOLV_CONF)
        try:
            self.ip(*(f"address add {addr}/128 dev lo nodad" for addr in ("fd00:7::2", "fd00:7::13", "fd00:7::16")))
            self.settle_in(self.root)
            self.scripted = NameServer(self.path, SCRIPTED, "fd00:7::2")
            self._open.callback(self.scripted.close)
            self.dnsmasq = Dnsmasq(self, folder)
            self._open.callback(self.dnsmasq.close)
            self.web = listen(self.actor("web"), "::")
        except BaseException:
            self._open.close()
            raise

    def settle_in(self, actor: Actor) -> None:
        """Give an actor, and all that it forks later, this place's /etc."""
        actor.do("mounts")
        actor.do("mount", self.etc, "/etc")

    def stranger(self, program: Path, name: str) -> Actor:
        """A process of another build of the generator."""
        actor = Actor.start(program, name)
        with open(self.path) as place:
            actor.do("enter", fd=place.fileno())
        self.settle_in(actor)
        self._open.callback(actor.dismiss)
        actor.netns = self.inode
        return actor

    def configure(self, actor: Actor, file: str, text: str) -> None:
        """A file in /etc that only this actor, and its children, see otherwise."""
        path = self._folder / f"{file}-{actor.pid}"
        path.write_text(text)
        actor.do("mounts")
        actor.do("mount", path, f"/etc/{file}")

    def program(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Another program, started here; the process is the program's own."""
        enter = ["nsenter", f"--net={self.path}", f"--mount=/proc/{self.root.pid}/ns/mnt"]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*enter, *map(str, command)], **(pipes | options))

    def close(self) -> None:
        self._open.close()


def in_hex(name: bytes) -> str:
    """A name as an actor's word, whatever its bytes."""
    return f"hex:{name.hex()}"


def unique(addresses: Iterable[str]) -> list[str]:
    """getaddrinfo lists an address once for each type of socket."""
    return list(dict.fromkeys(addresses))
