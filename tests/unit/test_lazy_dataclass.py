"""A `lazy_dataclass` is what `dataclass(slots=True)` makes of the same class, later."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from pytracecon import events
from pytracecon.lazy_dataclass import lazy_dataclass

METHODS = ("__init__", "__repr__", "__eq__")
OF_EVENTS = [each for each in vars(events).values() if isinstance(each, type) and issubclass(each, events.Event)]


def made_with(decorator: Callable[[type], type]) -> tuple[type[Any], type[Any]]:
    @decorator
    class Base:
        """The base."""

        kind: ClassVar[str]
        first: int

        @property
        def twice(self) -> int:
            return 2 * self.first

    @decorator
    class Derived(Base):
        """More of it."""

        kind: ClassVar[str] = "derived"
        second: str
        third: list[int] | None = None

    return Base, Derived


LAZY = made_with(lazy_dataclass)
EAGER = made_with(dataclass(slots=True))


@pytest.mark.parametrize(("lazy", "eager"), list(zip(LAZY, EAGER, strict=True)))
def test_it_looks_as_if_nothing_were_late(lazy: type[Any], eager: type[Any]) -> None:
    assert inspect.signature(lazy) == inspect.signature(eager)
    assert lazy.__slots__ == eager.__slots__
    assert lazy.__match_args__ == eager.__match_args__
    assert lazy.__doc__ == eager.__doc__
    assert lazy.__hash__ is eager.__hash__ is None
    assert typing.get_type_hints(lazy.__init__) == typing.get_type_hints(eager.__init__)
    described = [[(each.name, each.type, each.default) for each in dataclasses.fields(made)] for made in (lazy, eager)]
    assert described[0] == described[1]
    for name in METHODS:
        assert getattr(lazy, name).__qualname__ == getattr(eager, name).__qualname__


def test_its_objects_do_as_those_of_a_dataclass() -> None:
    (base, lazy), (_, eager) = LAZY, EAGER
    one = lazy(1, "two", third=[3])
    assert repr(one) == repr(eager(1, "two", [3]))
    assert one == lazy(1, "two", [3])
    assert one != lazy(1, "two", [4])
    assert one != base(1)
    assert (one.twice, one.kind) == (2, "derived")
    assert dataclasses.asdict(one) == {"first": 1, "second": "two", "third": [3]}
    assert dataclasses.replace(one, first=4) == lazy(4, "two", [3])
    assert copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.fourth = 4
    with pytest.raises(TypeError) as refused:
        lazy(1)
    with pytest.raises(TypeError) as expected:
        eager(1)
    assert str(refused.value) == str(expected.value)
    match one:
        case lazy(first, second):
            assert (first, second) == (1, "two")


@pytest.mark.parametrize(
    "first",
    [repr, lambda one: one == copy.copy(one), lambda one: type(one)(1, "two")],
    ids=["__repr__", "__eq__", "__init__"],
)
def test_each_method_may_be_the_first_that_is_called(first: Callable[[Any], Any]) -> None:
    _, lazy = made_with(lazy_dataclass)
    one = object.__new__(lazy)
    one.first, one.second, one.third = 1, "two", None
    assert first(one)
    assert one == lazy(1, "two")


def test_importing_the_events_compiles_none_of_their_methods() -> None:
    code = (
        "import types; from pytracecon import events;"
        "print([name for each in vars(events).values() if isinstance(each, type) and issubclass(each, events.Event)"
        f" for name in {METHODS} if isinstance(vars(each)[name], types.FunctionType)])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kind", OF_EVENTS)
def test_events_are_dataclasses_that_can_be_pickled(kind: type[events.Event]) -> None:
    needed = [each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]
    event = kind(**dict.fromkeys(needed, 1))
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 - our own
    assert dataclasses.is_dataclass(kind)
