"""What happens after a tracer has dropped its privileges is seen as before; and what they were is gone.

Names are what uses most of them: libraries that come later, in roots where only their owner may look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytracecon import capabilities
from traffic.datagrams import udp
from traffic.dropped import DroppedTracer, Told
from traffic.jail import Jail
from traffic.naming import visit
from traffic.resolver import Place

Start = Callable[..., DroppedTracer]


@pytest.fixture
def dropped() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(**keywords: Any) -> DroppedTracer:
            tracer = DroppedTracer(**keywords)
            stack.callback(tracer.close)
            return tracer

        yield start


def assert_gone(tracer: DroppedTracer) -> None:
    """It has what it says that it kept, and can get nothing else."""
    status = tracer.status()
    kept = sum(1 << capabilities.NUMBERS[name] for name in tracer.dropped["kept"])
    assert [int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh", "Amb", "Bnd")] == [kept, kept, 0, 0, 0]
    assert status["NoNewPrivs"] == "1"
    assert not tracer.dropped["kept"].keys() & {"CAP_SETUID", "CAP_NET_ADMIN", "CAP_SYS_MODULE"}


@pytest.mark.parametrize("user", [pytest.param(None, marks=pytest.mark.slow(reason="less than as nobody")), "nobody"])
def test_a_library_that_comes_later_a_snapshot_and_ends_by_the_clock(
    dropped: Start, place: Place, tmp_path: Path, program: Path, user: str | None
) -> None:
    """In a root that is its owner's alone."""
    tmp_path.chmod(0o700)
    tracer = dropped(user=user, netns=place.path, events="close,lookup,flow", udp_idle=0.5)
    assert_gone(tracer)
    uid = "65534" if user else "0"
    assert tracer.status()["Uid"].split() == [uid] * 4
    assert tracer.dropped["lost"] == []
    jail = Jail(place, tmp_path / "root", program)
    prisoner = place.actor("prisoner")
    jail.hold(prisoner, "prisoner")

    def known(events: list[Told]) -> bool:
        prisoner.do("lookup", "two.test", 4, 1)
        return any(event.get("pid") == prisoner.pid and event.get("source") == "getaddrinfo" for event in events)

    assert tracer.until(known)
    assert place.web.address[1] in {row["local_port"] for row in tracer.snapshot()}
    near = visit(prisoner, place.web, "127.0.0.12")
    datagrams = udp(prisoner, bound=("127.0.0.1", 0))
    datagrams.tell(10, ("127.0.0.1", 9))

    def all_told(events: list[Told]) -> bool:
        of_it = [event for event in events if event.get("pid") == prisoner.pid]
        closed = [event for event in of_it if event["event"] == "close"]
        flows = [event for event in of_it if event["event"] == "flow" and event["ended"] == "idle"]
        return any(near.local and event["local_port"] == near.local[1] for event in closed) and any(
            event["remote_port"] == 9 for event in flows
        )

    assert tracer.until(all_told)
    # Older than the tracer, and somebody else's: /proc tells what it runs.
    (served,) = {event["exe"] for event in tracer.events if event.get("pid") == place.web.actor.pid}
    assert served == str(program)


@pytest.mark.slow(reason="no kernel has a say in it")
def test_what_is_lost_with_nothing_kept_is_said_and_the_rest_goes_on(
    dropped: Start, place: Place, tmp_path: Path, program: Path
) -> None:
    """DNS packets name connections as before."""
    tracer = dropped(keep="none", netns=place.path, events="connect,close,lookup")
    assert tracer.dropped["kept"] == {}
    assert tracer.dropped["lost"][0] == "libcs that come later, as those of containers do, are not seen"
    jail = Jail(place, tmp_path / "root", program)
    prisoner = place.actor("prisoner")
    jail.hold(prisoner, "prisoner")
    prisoner.do("lookup", "two.test", 4, 1)
    visit(prisoner, place.web, "127.0.0.12")

    def closed(events: list[Told]) -> bool:
        return any(event["event"] == "close" and event.get("pid") == prisoner.pid for event in events)

    assert tracer.until(closed)
    of_it = [event for event in tracer.events if event.get("pid") == prisoner.pid]
    assert {event["source"] for event in of_it if event["event"] == "lookup"} == {"dns"}
    assert {event["host"] for event in of_it if event["event"] == "close"} == {"two.test"}
