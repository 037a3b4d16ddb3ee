"""The order of what is open now, and how much of it is told. Knows no kernel and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from pytracecon.connections import Connection
from pytracecon.events import Event

__all__ = ["Nothing", "Order", "arranged", "measures"]

_MEASURES = frozenset(
    {"tx_bytes", "tx_acked", "rx_bytes", "retransmits", "syn_retransmits", "backlog", "backlog_limit"}
)
_UNITS = ("_ns", "_rate", "_queue", "_packets")
_LAST_PID = 1 << 32


@dataclass(slots=True)
class Nothing(Event):
    """A listing without rows, where it is told that there is none."""

    event: ClassVar[str] = "nothing"

    what: str


@dataclass(frozen=True, slots=True)
class Order:
    """By what `of` tells of a row, from the least, or the `most` first. What is not known comes behind all that is."""

    of: Callable[[Connection], Any]
    most: bool = False

    def __call__(self, rows: Iterable[Connection]) -> list[Connection]:
        known: list[tuple[Any, Connection]] = []
        unknown: list[Connection] = []
        for row in rows:
            value = self.of(row)
            if value is None:
                unknown.append(row)
            else:
                known.append((value, row))
        known.sort(key=_first, reverse=self.most)
        return [*(row for _, row in known), *unknown]


def arranged(rows: Iterable[Connection], order: Order | None, limit: int) -> tuple[list[Connection], int]:
    """As many as `limit` of the rows, and how many are left out.

    Those that are equal in what counts stand by process and port. The paths of an MPTCP connection stand beneath it.
    """
    ordered = sorted(rows, key=_by_process)
    if order is not None:
        ordered = order(ordered)
    wholes = {row.conn for row in ordered}
    paths: dict[str, list[Connection]] = {}
    for row in ordered:
        if row.subflow_of in wholes:
            paths.setdefault(row.subflow_of, []).append(row)
    if paths:
        ordered = [each for row in ordered if row.subflow_of not in wholes for each in (row, *paths.get(row.conn, ()))]
    return ordered[:limit], max(0, len(ordered) - limit)


def measures(key: str) -> bool:
    """Whether this key of a connection says how much or how long: the most of it comes first."""
    return key in _MEASURES or (key != "time_ns" and key.endswith(_UNITS))


def _first(item: tuple[Any, Connection]) -> Any:
    return item[0]


def _by_process(row: Connection) -> tuple[int, str, int, str, int, str]:
    return (
        _LAST_PID if row.pid is None else row.pid,
        row.proto,
        row.local_port or 0,
        row.remote_addr or "",
        row.remote_port or 0,
        row.conn,
    )
