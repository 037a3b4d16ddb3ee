"""Filters: each lets through what it should, whole, and holds back the rest, whole."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import Actor
from traffic.end import End, begin_connect, close, connect, listen, pair
from traffic.network import NAME, Network
from traffic.story import Told
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"

ALL_OUT = "alice bob carol dora eve refused"
ALL_IN = "to-alice to-bob to-carol to-dora to-eve"


@dataclass
class Town:
    """Who lives there. Alice is Carol's parent and Carol is Dora's; Bob is an ordinary user; Eve lives elsewhere.

    Bob, Dora and Eve are in the control group, Bob in one below it.
    """

    here: Network
    elsewhere: Network
    server: Actor
    alice: Actor
    bob: Actor
    eve: Actor
    cgroup: Path

    def traffic(self) -> dict[str, End]:
        """Each makes one connection; Alice is refused another. By name the clients' ends, and the server's behind."""
        web, database = listen(self.server, "::", 8080), listen(self.server, "::", 9090)
        faraway = listen(self.elsewhere.actor("faraway"), port=8080)
        carol = self.alice.fork("carol")
        dora = carol.fork("dora")
        dora.do("write", self.cgroup / "cgroup.procs", dora.pid)
        ends: dict[str, End] = {}
        for name, actor, listener, addr in (
            ("alice", self.alice, web, "127.0.0.1"),
            ("bob", self.bob, database, "127.0.0.2"),
            ("carol", carol, web, "::1"),
            ("dora", dora, database, "::1"),
            ("eve", self.eve, faraway, "127.0.0.1"),
        ):
            near, far = pair(actor, listener, to=addr)
            near.send(10)
            far.receive_all()
            close(near, far)
            ends |= {name: near, f"to-{name}": far}
        ends["refused"] = connect(self.alice, ("127.0.0.1", 7), source=("127.0.0.1", 4000))
        for listener in (web, database, faraway):
            listener.close()
        return ends


@pytest.fixture
def town(cgroup: Path, networks: Callable[[], Network]) -> Town:
    here, elsewhere = networks(), networks()
    people = {name: here.actor(name) for name in ("server", "alice", "bob")}
    eve = elsewhere.actor("eve")
    people["bob"].do("write", cgroup / "child" / "cgroup.procs", people["bob"].pid)
    eve.do("write", cgroup / "cgroup.procs", eve.pid)
    people["bob"].set_user(4711)
    return Town(here, elsewhere, **people, eve=eve, cgroup=cgroup)


Keywords = Callable[[Town], dict[str, Any]]

TOGETHER: dict[str, tuple[Keywords, str]] = {
    "a family's": (lambda t: {"pid": t.alice.pid, "children": True, "not_port": 7}, "alice carol dora"),
    "a group's": (lambda t: {"cgroup": t.cgroup, "uid": 0, "comm": ["bob", "carol", "dora"]}, "dora"),
    "a server's": (
        lambda t: {"netns": t.here.path, "local_port": "8080,9090", "remote": "127.0.0.0/8"},
        "to-alice to-bob",
    ),
    "by both ends": (lambda _: {"port": 8080, "local": "127.0.0.1"}, "alice eve"),
    "by what it is not": (
        lambda _: {"family": 4, "direction": "out", "not_remote": "127.0.0.2", "not_port": 7},
        "alice eve",
    ),
    "failures": (lambda _: {"failed": True}, "refused"),
}
"""All kinds, in as few tracers as can be, for each takes its time where all is emulated: of these conditions each
holds back somebody whom the others let through."""

ALONE: dict[str, tuple[Keywords, str]] = {
    "a process": (lambda town: {"pid": town.alice.pid}, "alice refused"),
    "a process and its children": (lambda t: {"pid": t.alice.pid, "children": True}, "alice refused carol dora"),
    "a user": (lambda _: {"uid": 4711}, "bob"),
    "a command": (lambda _: {"comm": "bob"}, "bob"),
    "IPv4": (lambda _: {"family": 4}, "alice bob eve refused to-alice to-bob to-eve"),
    "IPv6": (lambda _: {"family": 6}, "carol dora to-carol to-dora"),
    "a remote port": (lambda _: {"port": 8080}, "alice carol eve"),
    "a local port": (lambda _: {"local_port": 8080}, "to-alice to-carol to-eve"),
    "not a remote port": (lambda _: {"not_port": 8080}, f"bob dora refused {ALL_IN}"),
    "a remote address": (lambda _: {"remote": "127.0.0.2"}, "bob"),
    "a remote network": (lambda _: {"remote": "127.0.0.0/8"}, "alice bob eve refused to-alice to-bob to-eve"),
    "not a remote network": (lambda _: {"not_remote": "127.0.0.0/8"}, "carol dora to-carol to-dora"),
    "a local address": (lambda _: {"local": "127.0.0.2"}, "to-bob"),
    "a namespace by its path": (lambda town: {"netns": town.elsewhere.path}, "eve to-eve"),
    "a control group with all below it": (lambda town: {"cgroup": town.cgroup}, "bob dora eve"),
    "inbound": (lambda _: {"direction": "in"}, ALL_IN),
    "all must hold": (lambda _: {"uid": 0, "port": 8080, "family": 4}, "alice eve"),
}
"""What passes each kind of filter."""

VARIANTS: dict[str, tuple[Keywords, str]] = {
    "no filter": (lambda _: {}, f"{ALL_OUT} {ALL_IN}"),
    "two processes": (lambda town: {"pid": [town.bob.pid, town.eve.pid]}, "bob eve"),
    "a server's process": (lambda town: {"pid": town.server.pid}, "to-alice to-bob to-carol to-dora"),
    "another user": (lambda _: {"uid": 4712}, ""),
    "two commands": (lambda _: {"comm": ["alice", "eve"]}, "alice refused eve"),
    "part of a command": (lambda _: {"comm": "ali"}, ""),
    "remote ports": (lambda _: {"port": "7,9000-9099"}, "bob dora refused"),
    "local ports": (lambda _: {"local_port": "1-1023,4000,9090"}, "refused to-bob to-dora"),
    "a remote address of IPv6": (lambda _: {"remote": "::1"}, "carol dora to-carol to-dora"),
    "all of IPv6": (lambda _: {"remote": "::/0"}, "carol dora to-carol to-dora"),
    "remote addresses of both": (lambda _: {"remote": ["127.0.0.2", "::1"]}, "bob carol dora to-carol to-dora"),
    "a namespace by a process": (lambda town: {"netns": town.eve.pid}, "eve to-eve"),
    "a control group": (lambda town: {"cgroup": town.cgroup / "child"}, "bob"),
    "outbound": (lambda _: {"direction": "out"}, ALL_OUT),
    "some events": (lambda _: {"events": ["accept", "failed"]}, f"refused {ALL_IN}"),
    "all must hold, of a server": (lambda t: {"pid": t.server.pid, "local_port": 9090, "local": "::1"}, "to-dora"),
    "inclusion and exclusion": (lambda _: {"port": "1-9999", "not_port": 7, "not_remote": "::1"}, "alice bob eve"),
    "failures of a process": (lambda town: {"failed": True, "pid": town.bob.pid}, ""),
}
"""The same kinds otherwise or together."""


def told_of(name: str, end: End, keywords: dict[str, Any]) -> Told:
    events, ended = (IN, "remote_close") if name.startswith("to-") else (OUT, "local_close")
    if name == "refused":
        events = "connect failed"
    if keywords.get("failed"):
        events = "failed"
    if "events" in keywords:
        events = " ".join(event for event in events.split() if event in keywords["events"])
    return Told(end, events, ended=ended, reason="refused", error="ECONNREFUSED", syn_left=True)


@pytest.mark.parametrize(
    "case", [*TOGETHER, *(pytest.param(case, marks=pytest.mark.slow) for case in ALONE | VARIANTS)]
)
def test_lets_through_exactly(traced: Callable[..., Trace], trace: Trace, town: Town, case: str) -> None:
    keywords_of, passing = (TOGETHER | ALONE | VARIANTS)[case]
    keywords = keywords_of(town)
    filtered = traced(**keywords)
    ends = town.traffic()
    # What an unfiltered tracer has seen the end of is over for the filtered one too.
    assert trace.await_told(told_of(name, end, {}) for name, end in ends.items())
    filtered.tells(
        *(told_of(name, ends[name], keywords) for name in passing.split()),
        silent=(end for name, end in ends.items() if name not in passing.split()),
        alone=not {"failed", "events"} & keywords.keys(),
    )


def test_children_that_were_born_before_belong_too(traced: Callable[..., Trace], town: Town) -> None:
    child = town.alice.fork("older")
    grandchild = child.fork("older too")
    filtered = traced(pid=town.alice.pid, children=True)
    listener = listen(town.server)
    told, silent = [], []
    for actor in (child, grandchild, grandchild.fork("younger")):
        near, far = pair(actor, listener)
        close(near, far)
        told.append(Told(near, OUT, ended="local_close"))
        silent.append(far)
    filtered.tells(*told, silent=silent)


def test_a_child_stays_one_when_its_parent_is_gone(traced: Callable[..., Trace], town: Town) -> None:
    """A connection that began under the filter is told to its end, and a pid that died lets nobody else through."""
    filtered = traced(pid=town.alice.pid, children=True)
    listener = listen(town.server)
    child = town.alice.thread("starter").fork("child")
    near, far = pair(child, listener)
    child.kill()
    far.await_end()
    far.close()
    filtered.tells(Told(near, OUT, ended="local_close"), silent=[far])


@pytest.fixture
def named_namespace(town: Town) -> Iterator[str]:
    """Eve's namespace under a name of `ip netns`."""
    name = f"{NAME}{town.elsewhere.inode}"
    subprocess.run(["ip", "netns", "attach", name, str(town.eve.pid)], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_namespace_by_its_name(traced: Callable[..., Trace], town: Town, named_namespace: str) -> None:
    filtered = traced(netns=named_namespace)
    ends = town.traffic()
    filtered.tells(
        *(told_of(name, ends[name], {}) for name in ("eve", "to-eve")),
        silent=(end for name, end in ends.items() if "eve" not in name),
    )


def test_slow_handshakes_only(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    client, listener = here.actor("client"), listen(there.actor("server"), "10.9.0.2")
    filtered = traced(min_latency=500)
    quick, quick_far = pair(client, listener)
    close(quick, quick_far)
    refused = connect(client, ("10.9.0.2", 7))
    assert refused.error == "ECONNREFUSED"
    there.ip("route add blackhole 10.9.0.1/32")
    attempt = begin_connect(client, listener.address)
    attempt.await_resent()
    there.ip("route delete blackhole 10.9.0.1/32")
    slow, slow_far = attempt.finish(), listener.accept()
    slow.peer, slow_far.peer = slow_far, slow
    close(slow, slow_far)
    told = Told(slow, "established close", ended="local_close", syn_retransmits=slow.resent)
    filtered.tells(told, silent=[quick, quick_far, refused, slow_far])


def test_connections_older_than_the_tracer_are_filtered_too(traced: Callable[..., Trace], town: Town) -> None:
    listener = listen(town.server)
    alice, to_alice = pair(town.alice, listener)
    bob, to_bob = pair(town.bob, listener)
    filtered = traced(uid=4711)
    close(alice, to_alice)
    close(bob, to_bob)
    told = Told(bob, "close", ended="local_close", facts={"owner": "existing", "pre_existing": True})
    filtered.await_told([told])
    bob.direction = filtered.older_direction(bob)
    filtered.tells(told, silent=[alice, to_alice, to_bob])
