"""Port numbers: one, lists and ranges, as the command line writes them and as Python has them."""

from __future__ import annotations

from collections.abc import Iterable

from pytracecon.errors import InvalidValue
from pytracecon.filters.values import each, integer, refusal

PortRange = tuple[int, int]
PortsLike = int | str | Iterable[int | str]

ALL_PORTS: PortRange = (1, 65535)
_RIGHT = "give ports from 1 to 65535, as lists and ranges: 80,443,8000-8999"


def parse(option: str, value: PortsLike | None) -> tuple[PortRange, ...]:
    """Ranges (both ends belong to them), in order, without overlap and not adjacent."""
    if value is None:
        return ()
    merged: list[PortRange] = []
    for low, high in sorted(_range(option, item) for item in each(option, value, _RIGHT)):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def covers(ranges: tuple[PortRange, ...], wanted: PortRange) -> bool:
    return any(low <= wanted[0] and wanted[1] <= high for low, high in ranges)


def _range(option: str, item: object) -> PortRange:
    first, dash, last = item.partition("-") if isinstance(item, str) else (item, "", "")
    low = _port(first)
    high = _port(last) if dash else low
    if low is None or high is None:
        raise refusal(option, item, f"is no port; {_RIGHT}")
    if low > high:
        raise InvalidValue(f"{option}: {low}-{high} runs backwards; give {high}-{low}")
    return low, high


def _port(item: object) -> int | None:
    found = integer(item.strip() if isinstance(item, str) else item)
    return found if found is not None and ALL_PORTS[0] <= found <= ALL_PORTS[1] else None
