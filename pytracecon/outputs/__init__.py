"""From events to bytes (pure), and from bytes to a file or pipe (`sink`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pytracecon.events import Event

__all__ = ["Output", "Piece", "Summary"]

Piece = tuple[bytes, int]
"""Bytes, and how many events are in them: one, or as many as there are lines."""


class Output(Protocol):
    """A way to write events. It knows neither where they come from nor where they go."""

    def header(self) -> bytes:
        """What stands before the first event."""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        """All of `events`, in order."""


@runtime_checkable
class Summary(Output, Protocol):
    """An output that tells of many events together: `render` takes them in, and gives nothing, or some of them."""

    untold: int
    """Events that were taken in, and are in no piece yet."""

    def sum_up(self, *, last: bool) -> list[Piece]:
        """At the end (`last`), or of an interval. The pieces carry the events that they tell of, so that sums agree."""
