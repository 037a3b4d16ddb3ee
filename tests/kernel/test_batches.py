"""Events as columns, out of a real ring: the same as `read()` gives, with the same books."""

from __future__ import annotations

from collections import Counter

import pytest

from pytracecon import Lost, Tracer
from pytracecon.batches import WORDS
from traffic.end import close, listen, pair
from traffic.network import Network

TIMES = 20


def talk(network: Network) -> None:
    """One whole connection."""
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    near.send(10)
    far.receive_all()
    close(near, far)


def test_columns_and_events_tell_the_same(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer, Tracer(netns=network.path, names=False) as other:
        for _ in range(TIMES):
            talk(network)
        tracer.stop()
        other.stop()
        told = Counter[tuple[object, ...]]()
        for batch in tracer.batches():
            assert batch.events == []
            for kind, table in batch.items():
                owners = [WORDS["owner"][code] for code in table["owner"]]
                told.update(zip([kind] * table.rows, table["pid"], table["local_port"], owners, strict=True))
        events = list(other)
        assert told == Counter((each.event, each.pid, each.local_port, each.owner) for each in events)  # type: ignore[attr-defined]
        assert sum(told.values()) == TIMES * 5 == tracer.stats.handed == tracer.stats.delivered == tracer.stats.wanted


def test_filters_that_need_names_and_owners_hold_for_columns_too(network: Network) -> None:
    with Tracer(netns=network.path, exe="*/no-such-program") as tracer:
        talk(network)
        tracer.stop()
        assert sum(batch.count for batch in tracer.batches()) == 0
        stats = tracer.stats
        assert (stats.handed, stats.left_out) == (0, stats.delivered)
        assert stats.delivered >= 5


@pytest.mark.slow(reason="what is sent and lost is the kernel side's, and counted there by other tests")
def test_a_full_ring_is_counted_to_one_and_said_among_the_columns(network: Network) -> None:
    with Tracer(netns=network.path, names=False, ring_size="4K") as tracer:
        for _ in range(TIMES):
            talk(network)
        tracer.stop()
        lost = handed = 0
        for batch in tracer.batches():
            losses = [event for event in batch.events if isinstance(event, Lost)]
            assert not losses or not len(batch), "a loss stands alone"
            lost += sum(loss.count for loss in losses if loss.where == "ring")
            handed += batch.count
        stats = tracer.stats
        assert stats.wanted == stats.delivered + stats.lost_ring
        assert lost == stats.lost_ring > 0
        assert handed == stats.handed
