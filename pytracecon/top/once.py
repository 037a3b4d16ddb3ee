"""One screen of `top` as text."""

from __future__ import annotations

from collections.abc import Iterator

from pytracecon.top.columns import Glyphs
from pytracecon.top.feed import TracerFeed, Update
from pytracecon.top.frame import draw, rows_that_fit, text_of
from pytracecon.top.rows import Board
from pytracecon.top.view import View

__all__ = ["once"]


def once(feed: TracerFeed, view: View, wide: int, high: int, glyphs: Glyphs) -> str:
    """Of the second snapshot: the first has no rates. Nothing if the tracer was stopped before that."""
    board = Board()
    taken = 0

    def take(update: Update) -> None:
        nonlocal taken
        view.take(board.take(update.snapshot, update.events))
        taken += 1

    feed.pump(take, most=2)
    return "" if taken < 2 else "".join(f"{line}\n" for line in _lines(view, wide, high, glyphs))


def _lines(view: View, wide: int, high: int, glyphs: Glyphs) -> Iterator[str]:
    """In place of the keys stands how many rows there are besides."""
    lines = [text_of(line) for line in draw(view, wide, high, glyphs)[:-1]]
    while not lines[-1]:
        lines.pop()
    yield from lines
    more = len(view.rows) - rows_that_fit(high)
    if more > 0:
        yield f"{glyphs.cut} and {more} more"
