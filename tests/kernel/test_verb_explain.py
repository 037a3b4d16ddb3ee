"""`pytracecon explain`: real lives, told live and of a file, held against the events and what the ends did."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon.cli import main
from pytracecon.events import Accept, Close, Established, Event, Failed, State
from pytracecon.lives import Life, Lives
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.outputs.lives import LifeScreens
from pytracecon.views.explain import screen
from traffic.actor import Actor
from traffic.end import End, close, connect, listen, pair
from traffic.naming import assert_asked, the_lookup
from traffic.network import Network
from traffic.peers import TOP, Ours, tracing
from traffic.resolver import Place
from traffic.story import event_of, story
from traffic.trace import Trace

pytestmark = pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends in each kernel")

UNNAMED = "connect,established,failed,accept,close,state,retransmit,reset"
EVERY = f"{UNNAMED},lookup"


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """`main` gives SIGINT back to the kernel, for a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


@pytest.fixture
def everything_of(place: Place, traced: Callable[..., Trace]) -> Trace:
    return traced(events=EVERY, netns=place.path, names=True)


def fetch(place: Place, client: Actor, name: str) -> End:
    """1,000 bytes there and 50,000 back, on a connection to a name. The server closes first."""
    step = client.do("lookup", name, 4, 1)
    near, far = pair(client, place.web, to=step.extra["addresses"][0])
    near.send(1000)
    far.receive_all()
    far.send(50_000)
    near.receive_all()
    close(far, near)
    return near


def life_of(events: list[Event], end: End) -> Life:
    (conn,) = {event.conn for event in story(events, end)}
    lives = Lives()
    for event in events:
        lives.take(event)
    return lives.all[conn]


def facts(text: str) -> dict[str, str]:
    return {line[:13].strip(): line[13:] for line in text.partition("\n\n")[0].splitlines()[1:]}


def test_phases_are_those_of_the_events_and_happened_as_the_ends_saw_them(
    everything_of: Trace, place: Place, client: Actor
) -> None:
    step = client.do("lookup", "two.test", 4, 1)
    near, far = pair(client, place.web, to=step.extra["addresses"][0])
    close(far, near)
    events = everything_of.settle()
    life = life_of(events, near)
    phases = {phase.name: phase for phase in life.phases()}
    assert list(phases) == ["resolver", "until the SYN", "handshake", "open", "closing"]

    lookup = the_lookup(events, client, source="getaddrinfo")
    assert life.lookup is lookup
    assert_asked(lookup, step, name="two.test")
    established, over = event_of(events, near, Established), event_of(events, near, Close)
    states = {event.old: event for event in story(events, near) if isinstance(event, State)}
    assert phases["resolver"].took_ns == lookup.latency_ns
    assert phases["handshake"].took_ns == established.latency_ns
    assert phases["open"].took_ns == states["ESTABLISHED"].in_old_ns
    assert phases["closing"].took_ns == sum(states[old].in_old_ns or 0 for old in ("CLOSE_WAIT", "LAST_ACK"))
    # From the answer to the first SYN, and from there to the end, nothing is left out and nothing counted twice.
    whole = sum(phase.took_ns for phase in phases.values())
    assert life.began_ns == lookup.time_ns - (lookup.latency_ns or 0)
    assert abs(over.time_ns - life.began_ns - whole) < 1_000_000
    assert 0 < phases["handshake"].took_ns <= near.settled.mono[1] - near.opened.mono[0]

    taken = life_of(events, far)
    assert [phase.name for phase in taken.phases()] == ["handshake", "open", "until accepted", "closing"]
    waited = {phase.name: phase.took_ns for phase in taken.phases()}["until accepted"]
    assert waited == event_of(events, far, Accept).wait_ns


def test_a_life_is_told_live_as_it_is_of_a_file(
    everything_of: Trace, place: Place, client: Actor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same events, once as the run of the verb takes them, and once written and read."""
    near = fetch(place, client, "one.test")
    refused = connect(client, ("127.0.0.1", 9))
    events = everything_of.settle()
    (tmp_path / "events.jsonl").write_bytes(b"".join(piece for piece, _ in JsonLines().render(events)))

    screens = LifeScreens(unfinished=False)
    live = "".join(piece.decode() for piece, _ in screens.render(list(filter(screens.passes, events))))
    for end in (near, near.peer, refused):
        assert end
        life = life_of(events, end)
        assert main(["explain", "--file", str(tmp_path / "events.jsonl"), life.conn]) == 0
        told = capfd.readouterr().out
        assert told == screen(life, lambda: None)
        assert told in live

    said = facts(screen(life_of(events, near), lambda: None))
    assert said["payload"] == "1000 B out, 50000 B in"
    assert said["name"] == "one.test, it asked its libc (getaddrinfo)"
    assert said["end"].startswith("the server closed it first; this side (the client) followed after ")
    assert said["process"].startswith(f"client ({client.pid}), user 0, connected")
    assert said["program"].startswith("/")


HOW = {
    "closed": ("this side (the client) closed it first", "the client closed it first; this side (the server) follo"),
    "reset": ("this side (the client) cut it with a reset in ESTABLISHED", "the client cut it with a reset in ESTAB"),
}


@pytest.mark.parametrize("how", HOW)
def test_how_it_ended_is_told_from_either_end(everything_of: Trace, place: Place, client: Actor, how: str) -> None:
    near, far = pair(client, place.web, to="127.0.0.1")
    if how == "reset":
        near.reset()
    else:
        near.close()
    far.await_end()
    far.close()
    events = everything_of.settle()
    for end, words in zip((near, far), HOW[how], strict=True):
        life = life_of(events, end)
        assert life.over
        assert facts(screen(life, lambda: None))["end"].startswith(words)


def test_why_there_was_none(everything_of: Trace, client: Actor) -> None:
    refused = connect(client, ("127.0.0.1", 9))
    events = everything_of.settle()
    life = life_of(events, refused)
    assert life.end is event_of(events, refused, Failed)
    assert [phase.name for phase in life.phases()] == ["attempt"]
    told = facts(screen(life, lambda: None))
    assert (
        told["end"] == "refused (ECONNREFUSED): a reset came in answer to the SYN, as where nothing listens on port 9"
    )
    assert told["reset"] == "received in SYN_SENT"


def test_why_nobody_answered(traced: Callable[..., Trace], network: Network) -> None:
    trace = traced(events=UNNAMED, netns=network.path)
    client, listener = network.actor("client"), listen(network.actor("server"), backlog=0)
    connect(client, listener.address)
    late = connect(client, listener.address, source=("127.0.0.1", 4000), options={"TCP_SYNCNT": 1})
    assert late.error == "ETIMEDOUT"
    told = facts(screen(life_of(trace.settle(), late), lambda: None))
    count = network.syns_resent
    assert count > 0
    assert told["sent again"] == f"{count} segment{'s' if count > 1 else ''}: {count} SYN"
    often = f"{count} times" if count > 1 else "once"
    assert told["end"] == f"timed out (ETIMEDOUT): no answer came to the SYN; the SYN was sent again {often}"


def test_what_is_sent_again_is_as_the_kernel_counts_it(traced: Callable[..., Trace], network: Network) -> None:
    """All of what is larger than a header is dropped on its way in, but for the first two and what comes slowly."""
    trace = traced(events=UNNAMED, netns=network.path)
    client, listener = network.actor("client"), listen(network.actor("server"))
    near, far = pair(client, listener)
    large = f"add rule inet t in tcp dport {listener.address[1]} meta length > 200"
    chain = "add table inet t; add chain inet t in { type filter hook input priority 0; }"
    network.run("nft", f"{chain}; {large} limit rate over 1/hour burst 2 packets accept; {large} drop")
    near.send(50_000)
    far.receive_all()
    close(near, far)
    life = life_of(trace.settle(), near)
    count = client.segments_resent
    assert count > 0
    assert facts(screen(life, lambda: None))["sent again"] == f"{count} segment{'s' if count > 1 else ''}: {count} data"


def shape(text: str) -> list[str]:
    """Labels, events and words, without what two tracers measure each for itself."""
    plain = re.sub(r"[#|]+", "", re.sub(r"[0-9a-f]{16}|[0-9][0-9.:]*", "0", text))
    return [" ".join(line.split()) for line in plain.splitlines()]


@pytest.mark.slow(reason="starts four Pythons for what no kernel has a say in")
def test_the_command_tells_what_it_writes(place: Place, client: Actor, tmp_path: Path) -> None:
    """One tells live and ends by itself; one writes, and what it wrote is told with no privilege at all."""
    events = tmp_path / "events.jsonl"
    here = f"--netns {place.path} --comm client"
    live, writes = Ours("explain", f"{here} --count 2"), Ours("explain", f"{here} --format json -o {events}")
    with tracing([live, writes]):
        fetch(place, client, "one.test")
        connect(client, ("127.0.0.1", 9))
        told = live.ended()
        assert writes.lines() == []
    assert told.count("\nconnection ") == 2

    explain = [sys.executable, "-m", "pytracecon", "explain", "--file", "-"]
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *explain]
    listed = subprocess.run(powerless, input=events.read_bytes(), capture_output=True, check=True, cwd=TOP)
    conns = [line.split()[1] for line in listed.stdout.decode().splitlines()[1:]]
    assert len(conns) == 2
    again = [
        subprocess.run([*powerless, conn], input=events.read_bytes(), capture_output=True, check=True, cwd=TOP)
        for conn in conns
    ]
    assert shape("\n".join(each.stdout.decode() for each in again)) == shape(told)
