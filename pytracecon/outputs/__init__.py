"""From events to bytes (pure), and from bytes to a file or pipe (`sink`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pytracecon.events import Event

__all__ = ["Output", "Piece"]

Piece = tuple[bytes, int]
"""Bytes, and how many events are in them: one, or as many as there are lines."""


class Output(Protocol):
    """A way to write events. It knows neither where they come from nor where they go."""

    def header(self) -> bytes:
        """What stands before the first event."""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        """All of `events`, in order."""
