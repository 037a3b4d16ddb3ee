"""JSON Lines that pytracecon wrote, back into events: each key with its type, or it is none of ours.

with open_file("events.jsonl") as stream:
    lines = Lines(stream, "events.jsonl")
    for event in lines:
        ...
    lines.cut_off      # the number of the last line, if only its beginning is there
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, BinaryIO, Union, get_type_hints

import msgspec

from pytracecon import events
from pytracecon.clock import SECOND
from pytracecon.errors import InvalidValue, PytraceconError
from pytracecon.events import Endpoint, Event, Process
from pytracecon.outputs.keys import keys
from pytracecon.text import one_line

__all__ = ["InputFailed", "Lines", "open_file"]

_LONGEST = 1 << 20
_GREATEST = (1 << 64) - 1
_LAST_PORT = 65535
_INSTANTS = frozenset({"from", "to"})
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z", re.ASCII)
_BEGINS = b'{"event":"'
_REMEDY = "give a file that --format json wrote"


class InputFailed(PytraceconError, OSError):
    """The input is there, and could not be read. Of the command line only."""

    exit_status = 74


class _Wrong(ValueError):
    """What no type tells."""


def open_file(path: str) -> BinaryIO:
    """A file or a pipe; `-` is standard input. Raises `InvalidValue` or `InputFailed`."""
    if path == "-":
        return open(0, "rb", closefd=False)
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise InvalidValue(one_line(f"--file: {path} cannot be read: {why}; {_REMEDY}")) from None
    except OSError as error:
        raise _unreadable(path, error) from None


class Lines:
    """The events of a stream, one after the other, read once. Raises `InvalidValue` for a line that is none of ours.

    Keys and kinds of events that a newer version has are left alone.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = "standard input" if name == "-" else name
        self.read = 0
        """Lines that are whole."""
        self.cut_off: int | None = None

    def __iter__(self) -> Iterator[Event]:
        while line := self._line():
            try:
                event = _event(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if self._is_cut_off(line, error):
                    self.cut_off = self.read + 1
                    return
                raise self._refusal(_said(error)) from None
            except _Wrong as error:
                raise self._refusal(str(error)) from None
            except RecursionError:
                raise self._refusal("it is nested too deeply") from None
            self.read += 1
            if event is not None:
                yield event

    def _line(self) -> bytes:
        try:
            line = self._stream.readline(_LONGEST + 1)
        except OSError as error:
            raise _unreadable(self.name, error) from None
        if len(line) > _LONGEST:
            raise self._refusal("it is longer than 1 MiB")
        return line

    def _is_cut_off(self, line: bytes, error: Exception) -> bool:
        """Nothing follows it, it begins as ours do, and it ends before its object does."""
        if line.endswith(b"\n") or isinstance(error, msgspec.ValidationError):
            return False
        return line.startswith(_BEGINS) or _BEGINS.startswith(line)

    def _refusal(self, why: str) -> InvalidValue:
        return InvalidValue(one_line(f"--file: {self.name}, line {self.read + 1}: {why}; {_REMEDY}"))


def _unreadable(name: str, error: OSError) -> InputFailed:
    return InputFailed(one_line(f"--file: {name} cannot be read: {error.strerror}; see who may, or copy it first"))


def _event(line: bytes) -> Event | None:
    """None for a kind of event that is not known here."""
    try:
        row = _DECODER.decode(line)
    except msgspec.ValidationError:
        if _is_newer(msgspec.json.decode(line)):
            return None
        raise
    return _BUILD[type(row)](row)


def _is_newer(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    kind, time = found.get("event"), found.get("time")
    return isinstance(kind, str) and kind not in _NAMES and isinstance(time, str) and bool(_TIME.fullmatch(time))


def _said(error: Exception) -> str:
    """`pid: expected int | null, got str`."""
    if not isinstance(error, msgspec.ValidationError):
        return "it is no JSON"
    what, _, where = str(error).replace("`", "").partition(" - at ")
    said = what[:1].lower() + what[1:]
    return f"{where.removeprefix('$').removeprefix('.')}: {said}" if where else said


def _nanoseconds(key: str, text: str) -> int:
    match = _TIME.fullmatch(text)
    second = None if match is None else _second(match[1])
    if match is None or second is None:
        raise _Wrong(f"{key}: {text[:40]!r} is no time such as 2026-11-20T07:50:09.123456789Z")
    return second * SECOND + int(match[2])


@lru_cache(maxsize=64)
def _second(text: str) -> int | None:
    """None of the thirteenth month, and before there were any."""
    try:
        second = int(datetime.fromisoformat(f"{text}+00:00").timestamp())
    except ValueError:
        return None
    return second if second >= 0 else None


_Natural = Annotated[int, msgspec.Meta(ge=0)]
_NATURALS: dict[Any, Any] = {int: _Natural, int | None: _Natural | None, list[int] | None: list[_Natural] | None}


def _typed(kind: type[Event]) -> type[msgspec.Struct]:
    """The structure of such a line. Its fields are numbered: `from` cannot be the name of one."""
    hints = get_type_hints(Process) | get_type_hints(kind)
    required = {field.name for field in fields(kind)} - {"time_ns"}
    required -= {name for name in required if type(None) in getattr(hints[name], "__args__", ())}
    columns: list[tuple[str, Any] | tuple[str, Any, Any]] = [("time", str)]
    names: dict[str, str] = {}
    for number, key in enumerate(keys(kind)):
        names[f"f{number}"] = key
        hint = str | None if key in _INSTANTS else hints[key]
        hint = _NATURALS.get(hint, hint)
        columns.append((f"f{number}", hint) if key in required else (f"f{number}", hint, None))
    return msgspec.defstruct(
        kind.__name__, columns, rename=names, tag_field="event", tag=kind.event, kw_only=True, gc=False
    )


def _builder(kind: type[Event]) -> Callable[[Any], Event]:
    """What makes the event of a structure's values."""
    names = keys(kind)
    get = attrgetter("time", *(f"f{number}" for number in range(len(names))))
    own = {field.name for field in fields(kind)}
    of_process = [field.name for field in fields(Process)] if "process" in own else []

    def build(row: Any) -> Event:
        time, *found = get(row)
        values = {name: value for name, value in zip(names, found, strict=True) if value is not None}
        for name, value in values.items():
            if type(value) is not str:
                _judge(name, value)
        for key in _INSTANTS & values.keys():
            values[f"{key}_ns"] = _nanoseconds(key, values.pop(key))
        if of_process:
            known = {name: values.pop(name) for name in of_process if name in values}
            values["process"] = Process(**known) if known else None
        return kind(_nanoseconds("time", time), **values)

    return build


def _judge(name: str, value: object) -> None:
    """What the types do not say."""
    if type(value) is int:
        wrong = value > _GREATEST
    elif type(value) is list:
        wrong = any(type(each) is int and each > _GREATEST for each in value)
    elif type(value) is Endpoint:
        wrong = not 0 <= value.port <= _LAST_PORT
    else:
        return
    if wrong:
        raise _Wrong(f"{name}: there is no such number")


_KINDS: tuple[type[Event], ...] = tuple(
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and "event" in vars(kind)
)
_TYPED = {kind: _typed(kind) for kind in _KINDS}
_BUILD = {typed: _builder(kind) for kind, typed in _TYPED.items()}
_NAMES = frozenset(kind.event for kind in _KINDS)
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Union[tuple(_TYPED.values())])  # noqa: UP007 - of a tuple
