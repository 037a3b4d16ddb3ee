"""The first state of a connection comes with where its SYN went, in its place, and at the latest a moment later."""

from __future__ import annotations

from typing import Any

import pytest

from pytracecon.events import ConnectionEvent, Endpoint, Event, Lost, State
from pytracecon.views.beginnings import Beginnings

REAL = Endpoint("192.168.2.1", 22)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Known:
    """What the tracer has learnt: by connection."""

    def __init__(self) -> None:
        self.services: dict[str, Endpoint] = {}

    def __call__(self, event: ConnectionEvent) -> None:
        event.service = self.services.get(event.conn)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture(params=[False, True], ids=["with others", "alone"])
def beginnings(request: pytest.FixtureRequest, known: Known, clock: Clock) -> Beginnings:
    return Beginnings(known, alone=request.param, clock=clock)


@pytest.fixture
def alone(known: Known, clock: Clock) -> Beginnings:
    return Beginnings(known, alone=True, clock=clock)


@pytest.fixture
def together(known: Known, clock: Clock) -> Beginnings:
    return Beginnings(known, clock=clock)


def state(conn: str, old: str, new: str, **more: Any) -> State:
    return State(1, conn, "tcp", "out", old=old, new=new, **more)


def first(conn: str) -> State:
    return state(conn, "CLOSE", "SYN_SENT")


def second(conn: str, service: Endpoint | None = REAL) -> State:
    return state(conn, "SYN_SENT", "ESTABLISHED", service=service)


def services(events: list[Event]) -> list[tuple[str, Endpoint | None]]:
    return [(event.conn, event.service) for event in events if isinstance(event, State)]


def test_its_second_event_tells_it(beginnings: Beginnings) -> None:
    assert beginnings.take([first("a")]) == []
    assert services(beginnings.take([second("a")])) == [("a", REAL), ("a", REAL)]
    assert len(beginnings) == 0


def test_it_comes_as_soon_as_it_is_known(beginnings: Beginnings, known: Known) -> None:
    assert beginnings.take([first("a")]) == []
    known.services["a"] = REAL
    assert services(beginnings.take([])) == [("a", REAL)]
    assert beginnings.deadline is None


def test_what_comes_behind_it_stays_behind_it(beginnings: Beginnings) -> None:
    lost = Lost(1, 2, "ring")
    assert beginnings.take([first("a"), second("b"), lost]) == []
    told = beginnings.take([second("a"), second("c")])
    assert services(told) == [("a", REAL), ("b", REAL), ("a", REAL), ("c", REAL)]
    assert told[2] is lost


def test_what_goes_straight_waits_no_longer_than_its_second_event(beginnings: Beginnings) -> None:
    told = beginnings.take([first("a"), second("a", service=None)])
    assert services(told) == [("a", None), ("a", None)]


def test_without_an_answer_it_comes_a_moment_later_all_the_same(together: Beginnings, clock: Clock) -> None:
    assert together.take([first("a"), second("b")]) == []
    assert together.deadline == pytest.approx(clock.now + 0.1)
    clock.now += 0.1
    assert services(together.take([])) == [("a", None), ("b", REAL)]


def test_where_only_services_are_shown_it_waits_aside_and_holds_up_nobody(alone: Beginnings, clock: Clock) -> None:
    alone.take([first("a"), second("b")])
    clock.now += 0.1
    assert services(alone.take([second("c")])) == [("b", REAL), ("c", REAL)]
    assert services(alone.take([second("a")])) == [("a", REAL), ("a", REAL)]
    assert len(alone) == 0


def test_at_the_end_nothing_is_left(beginnings: Beginnings, known: Known, clock: Clock) -> None:
    beginnings.take([first("a")])
    clock.now += 0.1
    given = len(beginnings.take([first("b"), second("c")]))
    known.services["b"] = REAL
    left = beginnings.rest()
    assert given + len(left) == 3
    assert services(left)[-2:] == [("b", REAL), ("c", REAL)]
    assert len(beginnings) == 0
    assert beginnings.rest() == []


def test_no_more_stand_aside_than_there_is_room_for(
    alone: Beginnings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytracecon.views.beginnings._MOST", 10)
    alone.take([first(str(number)) for number in range(15)])
    clock.now += 0.1
    assert services(alone.take([])) == [(str(number), None) for number in range(5)]
    assert len(alone) == 10


def test_states_that_are_no_beginning_do_not_wait(beginnings: Beginnings) -> None:
    listening = state("l", "CLOSE", "LISTEN")
    assert beginnings.take([listening]) == [listening]
