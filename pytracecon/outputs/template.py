r"""A line of the user's own for each event: `{comm} {remote_addr}:{remote_port}`.

Between braces stands the name of a key and nothing else: no attribute, no index, no format. A brace itself is written
twice. What is not known, or is no key of this kind of event, is `?`, as in the tables; of several values a comma stands
between two, and arguments are quoted as for a shell. Foreign text is escaped as in the tables, so that an event is a
line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from shlex import join
from typing import Any

from pytracecon.clock import rfc3339
from pytracecon.errors import InvalidValue
from pytracecon.events import Event
from pytracecon.filters.values import refusal
from pytracecon.outputs import Piece
from pytracecon.outputs.keys import all_keys
from pytracecon.text import safe

__all__ = ["KEYS", "Template", "TemplateLines", "value_of"]

KEYS = ("event", "time", *all_keys())

_UNKNOWN = "?"
_PIECE = re.compile(r"([^{}]+)|(\{\{|\}\})|\{([^{}]*)\}")
_INSTANTS = {"from": "from_ns", "to": "to_ns"}


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and keys in turn: a text, a key, a text … a text."""

    texts: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def parse(cls, option: str, value: str, known: Collection[str] = KEYS) -> Template:
        """Raises `InvalidValue` for what is none, and for a key that is not `known`."""
        if any(not character.isprintable() and character != "\t" for character in value):
            raise refusal(option, value, "holds a control character; a line for each event is text, and at most tabs")
        texts, keys, at = [""], [], 0
        while at < len(value):
            piece = _PIECE.match(value, at)
            if piece is None:
                raise refusal(option, value, f"has a lone {value[at]}; write {value[at] * 2} for the brace itself")
            text, brace, key = piece.groups()
            if key is None:
                texts[-1] += text or brace[0]
            elif key in known:
                keys.append(key)
                texts.append("")
            else:
                raise InvalidValue(f"{refusal(option, f'{{{key}}}', 'is no key; there are')} {', '.join(known)}")
            at = piece.end()
        if not keys:
            raise refusal(option, value, "names no key, such as {comm}: every line would be the same")
        return cls(tuple(texts), tuple(keys))

    def line(self, value: Callable[[str], Any]) -> str:
        return self.texts[0] + "".join(
            [shown(key, value(key)) + text for key, text in zip(self.keys, self.texts[1:], strict=True)]
        )


class TemplateLines:
    """`value` takes what a key names out of an event; None if it is not known."""

    def __init__(self, template: Template, value: Callable[[Event, str], Any] | None = None) -> None:
        self._template = template
        self._value = value_of if value is None else value

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        return [(f"{self._line(event)}\n".encode(), 1) for event in events]

    def _line(self, event: Event) -> str:
        return self._template.line(lambda key: self._value(event, key))


def value_of(event: Event, key: str) -> Any:
    """What `key`, one of `KEYS`, is in this event; None if it has no such key. An instant is text, as in JSON."""
    if key in _INSTANTS:
        return _instant(getattr(event, _INSTANTS[key], None))
    return getattr(event, key, None)


def _instant(time_ns: int | None) -> str | None:
    return None if time_ns is None else rfc3339(time_ns)


def shown(key: str, value: Any) -> str:
    """A value as a piece of a line."""
    if value is None:
        return _UNKNOWN
    if key == "args":
        return safe(join(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join([safe(str(each)) for each in value])
    return safe(str(value))
