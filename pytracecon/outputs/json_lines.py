"""JSON Lines: one object a line, keys in the order of the dataclasses, what is not known left out.

Each kind of event has a msgspec structure with its keys. Filling and encoding one costs a third of building a dict
without the `None`s, which a dataclass would need: 1.2 µs an event, the time's text included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pytracecon.clock import SECOND, rfc3339
from pytracecon.events import Event
from pytracecon.outputs import Piece
from pytracecon.outputs.keys import keys, values

__all__ = ["JsonLines", "line"]

# msgspec escapes C0, the quote and the backslash. DEL and everything beyond ASCII is looked at again.
_BEYOND_ASCII = re.compile("[^\0-~]+")


_Shape = tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]


class JsonLines:
    def __init__(self) -> None:
        self._shapes: dict[type[Event], _Shape] = {}
        self._encoder = msgspec.json.Encoder()

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        shapes = self._shapes
        rows = []
        second = -1 << 63  # of no event
        until_second = ""
        for event in events:
            rest = event.time_ns - second
            if not 0 <= rest < SECOND:
                rest = event.time_ns % SECOND
                second = event.time_ns - rest
                until_second = rfc3339(second)[:-10]  # without the decimals and the Z
            kind = type(event)
            if kind not in shapes:
                shapes[kind] = _shape(kind)
            structure, get = shapes[kind]
            rows.append(structure(until_second + str(SECOND + rest)[1:] + "Z", *get(event)))
        try:
            lines = self._encoder.encode_lines(rows)
        except UnicodeEncodeError:
            lines = self._encoder.encode_lines([_without_surrogates(row) for row in rows])
        return [(_harmless(lines), len(rows))]


def line(values: dict[str, Any]) -> bytes:
    """Any object as a line, by the same rules as the events."""
    try:
        text = msgspec.json.encode(values)
    except UnicodeEncodeError:
        text = msgspec.json.encode(_plain(values))
    return _harmless(text) + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return _as_text(value) if isinstance(value, str) else value


def _harmless(lines: bytes) -> bytes:
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return _BEYOND_ASCII.sub(_escaped, lines.decode()).encode()


def _shape(kind: type[Event]) -> _Shape:
    """The structure for a kind of event, and what takes an event apart to fill it."""
    # Fields cannot be called `from`, so their names are numbers.
    fields = {f"f{index}": name for index, name in enumerate(keys(kind))}
    structure = msgspec.defstruct(
        kind.__name__,
        [("time", str), *((field, Any, None) for field in fields)],
        rename=fields,
        tag_field="event",
        tag=kind.event,
        omit_defaults=True,
        gc=False,
    )
    return structure, values(kind)


def _without_surrogates(row: Any) -> Any:
    """A lone surrogate is no character, and in no UTF-8: shown as text."""
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, str):
            setattr(row, name, _as_text(value))
        elif isinstance(value, list):
            setattr(row, name, [_as_text(each) if isinstance(each, str) else each for each in value])
    return row


def _as_text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def _escaped(match: re.Match[str]) -> str:
    found = match[0]
    if found.isprintable():
        return found
    return "".join(character if character.isprintable() else _escape(character) for character in found)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
