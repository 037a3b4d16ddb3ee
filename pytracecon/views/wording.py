"""How durations, sizes, times, addresses and names are written for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from shlex import join
from typing import Any

from pytracecon.clock import SECOND
from pytracecon.text import safe

__all__ = ["UNKNOWN", "duration", "endpoint", "host", "several", "size", "time_of_day", "value"]

UNKNOWN = "?"

_EXACT_UP_TO = 100_000
_LONGEST_NAME = 48


def duration(nanoseconds: int) -> str:
    """Two decimals of a millisecond below a second (three where that would be 0.00), then seconds, minutes, hours."""
    if nanoseconds < 10_000:
        return f"{nanoseconds / 1e6:.3f} ms"
    if nanoseconds < 999_995_000:
        return f"{nanoseconds / 1e6:.2f} ms"
    if nanoseconds < 59_995_000_000:
        return f"{nanoseconds / 1e9:.2f} s"
    minutes, seconds = divmod(round(nanoseconds / 1e9), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def size(count: int) -> str:
    """Bytes, exactly up to five digits, then three significant digits in powers of a thousand."""
    if count < _EXACT_UP_TO:
        return f"{count} B"
    value, units = float(count), ["kB", "MB", "GB", "TB", "PB", "EB"]
    value /= 1000
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {units[0]}"


def endpoint(address: str | None, port: int | None) -> str:
    if address is None and port is None:
        return UNKNOWN
    shown = UNKNOWN if address is None else f"[{address}]" if ":" in address else address
    return f"{shown}:{UNKNOWN if port is None else port}"


def host(name: str, longest: int) -> str:
    """A name that others chose. Of one that is too long the end is shown: it tells whose the name is."""
    shown = safe(name)
    return shown if len(shown) <= longest else f"…{shown[1 - longest :]}"


def several(items: Sequence[str], most: int) -> str:
    """The first ones, and how many more there are."""
    return ", ".join(items if len(items) <= most else [*items[:most], f"+{len(items) - most}"])


def value(key: str, known: Any) -> str:
    """The value of any key of an event. Of a name that is too long the end is shown; arguments can be run again."""
    if known is None:
        return UNKNOWN
    if key == "args":
        return safe(join(known))
    if isinstance(known, (list, tuple)):
        return ",".join([safe(str(each)) for each in known])
    if isinstance(known, bool):
        return str(known).lower()
    if key.endswith("_ns"):
        return duration(known)
    return host(known, _LONGEST_NAME) if key in ("host", "name") else safe(str(known))


def time_of_day(time_ns: int, *, utc: bool = False, decimals: int = 6) -> str:
    second, rest = divmod(time_ns, SECOND)
    text = _second(second, utc=utc)
    return f"{text}.{rest:09d}"[: 9 + decimals] if decimals else text


@lru_cache(maxsize=256)
def _second(second: int, *, utc: bool) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(second) if utc else time.localtime(second))
