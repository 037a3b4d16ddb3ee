"""Colour for tables: whether there is any, and which events stand out. A line has one colour, or none."""

from __future__ import annotations

import os
from typing import Any

from pytracecon.events import Close, Event, Failed, Lookup, Lost

__all__ = ["HEADER", "painted", "style", "wanted"]

HEADER = "1"
_FAILED = "31"
_LOST = "1;31"
_BROKEN = "33"


def wanted(choice: str, *, terminal: bool) -> bool:
    """`choice` is auto, always or never. By itself colour is for terminals, unless NO_COLOR is set or TERM is dumb."""
    if choice != "auto":
        return choice == "always"
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(event: Event) -> str:
    """The parameters of the escape sequence (SGR) for an event's lines; none for what went as usual."""
    match event:
        case Lost():
            return _LOST
        case Failed():
            return _FAILED
        case Lookup(result=result) if result not in ("ok", None):
            return _FAILED
        case Close(ended="local_reset" | "remote_reset" | "timeout"):
            return _BROKEN
    return _of_row(event) if event.event == "connection" else ""


def _of_row(row: Any) -> str:
    """Of a listing (`connections.Connection`): a backlog takes one more than its limit."""
    if row.outcome == "failed":
        return _FAILED
    return _BROKEN if row.backlog_limit is not None and (row.backlog or 0) > row.backlog_limit else ""


def painted(lines: str, style: str) -> str:
    """Each line by itself, so that a colour never runs on into what others write."""
    if not style:
        return lines
    return "".join(f"\x1b[{style}m{line}\x1b[0m\n" for line in lines.splitlines())
