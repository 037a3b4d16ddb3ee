"""Values that can be judged by looking at them alone: numbers, sizes, names out of a list."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from pytracecon.errors import InvalidValue
from pytracecon.text import one_line

if TYPE_CHECKING:
    from pytracecon.events import Event

EVENTS = ("connect", "established", "failed", "accept", "close", "lookup")
ON_REQUEST = ("existing", "state", "retransmit", "reset", "flow")
"""Events that are told only to those who name them."""

NumberLike = int | str
NumbersLike = int | str | Iterable[int | str]
PlacesLike = int | str | os.PathLike[str] | Iterable[int | str | os.PathLike[str]]
CommandsLike = str | bytes | Iterable[str | bytes]
EventsLike: TypeAlias = "str | type[Event] | Iterable[str | type[Event]]"

_SIZE = re.compile(r"([0-9]{1,12})(?:([KMG])(?:i?B)?)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LARGEST_RING = 1 << 30
_LONGEST_COMM = 15
_A_DAY = 86_400_000  # milliseconds
_A_CENTURY = 3_155_760_000  # seconds


def refusal(option: str, value: object, what: str) -> InvalidValue:
    """`what` completes the sentence "OPTION: VALUE …" and says what would be right."""
    shown = one_line(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value))
    if len(shown) > 60:
        shown = shown[:59] + "…"
    return InvalidValue(one_line(f"{option}: {shown or 'an empty value'} {what}"))


def each(option: str, value: object, right: str, *, commas: bool = True) -> Iterator[object]:
    """The values in `value`: itself, its members, and with `commas` the members of a text's list. At least one."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        members = list(value)
        if not members:
            raise InvalidValue(f"{option}: an empty list; {right}, or leave it out")
        for member in members:
            yield from _split(member, commas=commas)
    else:
        yield from _split(value, commas=commas)


def _split(value: object, *, commas: bool) -> Iterator[object]:
    if commas and isinstance(value, str):
        yield from (item.strip() for item in value.split(","))
    else:
        yield value


def integer(value: object) -> int | None:
    """A plain decimal number, or None. Neither `True` nor `1_000` nor `٣` nor `+1` is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value, re.ASCII):
        return int(value)
    return None


def number(option: str, value: object, low: int, high: int) -> int:
    found = integer(value)
    if found is None or not low <= found <= high:
        raise refusal(option, value, f"is not a number from {low} to {high}")
    return found


def flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise refusal(option, value, "is neither True nor False")
    return value


def choice(option: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise refusal(option, value, f"is not one of {', '.join(choices)}")
    return value


def events(option: str, value: EventsLike | None, every: frozenset[str]) -> frozenset[str]:
    """Names of events, or their classes; `all` and no value mean `every`. `lost` cannot be named: it always comes.

    An empty list, not a text, means none: who takes snapshots may want nothing else.
    """
    if value is None:
        return every
    if isinstance(value, Iterable) and not isinstance(value, (str, type)):
        value = list(value)
        if not value:
            return frozenset()
    right = f"give any of {', '.join((*EVENTS, *ON_REQUEST[1:]))}, or all"
    names: set[str] = set()
    for item in each(option, value, right):
        name = _name_of(item) if isinstance(item, type) else item
        if name == "all":
            names.update(every)
        elif name in EVENTS or name in ON_REQUEST:
            names.add(str(name))
        elif name == "lost":
            raise InvalidValue(f"{option}: lost is always delivered; leave it out")
        else:
            shown = item.__name__ if isinstance(item, type) else item
            raise refusal(option, shown, f"is no event; {right}")
    return frozenset(names)


def _name_of(kind: type) -> object:
    from pytracecon.events import Event  # noqa: PLC0415 - whoever has a class of them has them all

    return getattr(kind, "event", None) if issubclass(kind, Event) else kind


def comms(option: str, value: CommandsLike | None) -> tuple[bytes, ...]:
    if value is None:
        return ()
    found: set[bytes] = set()
    for item in each(option, value, "give the name of a command", commas=False):
        if not isinstance(item, (str, bytes)):
            raise refusal(option, item, "is no command name: text of 1 to 15 bytes")
        raw = os.fsencode(item)
        if not raw or b"\0" in raw:
            raise refusal(option, item, "is no command name: 1 to 15 bytes, none of them NUL")
        if len(raw) > _LONGEST_COMM:
            kept = raw[:_LONGEST_COMM].decode("utf-8", "ignore")
            raise refusal(option, item, f"is longer than the {_LONGEST_COMM} bytes that the kernel keeps: give {kept}")
        found.add(raw)
    return tuple(sorted(found))


def milliseconds(option: str, value: float | str | None) -> int:
    """Nanoseconds; 0 if there is no value."""
    return 0 if value is None else round(_decimal(option, value, 0.001, _A_DAY, "milliseconds") * 1_000_000)


def seconds(option: str, value: float | str) -> float:
    return _decimal(option, value, 0.001, _A_CENTURY, "seconds")


def _decimal(option: str, value: object, low: float, high: int, what: str) -> float:
    right = f"is not a number of {what} from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise refusal(option, value, right)
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise refusal(option, value, right) from None
    if not math.isfinite(found) or not low <= found <= high:
        raise refusal(option, value, right)
    return found


def ring_size(option: str, value: object) -> int:
    """Bytes: a power of two and a multiple of the page size, as the kernel wants it."""
    smallest = os.sysconf("SC_PAGE_SIZE")
    found = integer(value)
    if found is None:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise refusal(option, value, "is no size: bytes, or a number with K, M or G, such as 8M")
        found = int(match[1]) * _UNITS[(match[2] or "").upper()]
    if not smallest <= found <= _LARGEST_RING:
        raise refusal(option, value, f"is outside {_size(smallest)} to {_size(_LARGEST_RING)}")
    below = 1 << (found.bit_length() - 1)
    if below != found:
        raise refusal(option, value, f"is not a power of two: {_size(below)} or {_size(below * 2)} would be")
    return found


def _size(count: int) -> str:
    return next(f"{count // unit}{name}" for name, unit in reversed(_UNITS.items()) if count % unit == 0)
