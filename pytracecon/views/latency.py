"""How long handshakes took, one a row, in the columns of tcpconnlat."""

from __future__ import annotations

from collections.abc import Callable

from pytracecon.events import ConnectionEvent, Failed
from pytracecon.outputs.table import Column, Table
from pytracecon.views import columns
from pytracecon.views.answers import Answers
from pytracecon.views.columns import COMM, HOST, IP, PID, Cell, address, milliseconds, port, since_first
from pytracecon.views.wording import UNKNOWN

__all__ = ["cells", "table"]


def cells(
    *, timestamp: bool = False, lport: bool = False, outcome: bool = False, answers: Answers | None = None
) -> list[Cell]:
    """`outcome`: with what came of it; `answers`: with how long the resolver took for the name, and the name."""
    shown = [since_first(3)] if timestamp else []
    shown += [PID, COMM, IP, address("SADDR", "local")]
    shown += [port("LPORT", "local", 6)] if lport else []
    shown += [address("DADDR", "remote"), port("DPORT", "remote", 5)]
    shown.append(Cell(Column("LAT(ms)", 9, 9), lambda event: milliseconds(event.latency_ns)))
    shown += [Cell(Column("OUTCOME", 11, 11), _outcome)] if outcome else []
    if answers is not None:
        shown += [Cell(Column("RESOLVER(ms)", 12, 12), lambda event: _resolver(event, answers)), HOST]
    return shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="SADDR")


def _outcome(event: ConnectionEvent) -> str:
    return (event.reason or event.error or UNKNOWN) if isinstance(event, Failed) else event.event


def _resolver(event: ConnectionEvent, answers: Answers) -> str:
    """`?` where there is a name, and its lookup is not known; `-` where there is none."""
    answer = answers.of(event)
    return "-" if event.host is None else UNKNOWN if answer is None else milliseconds(answer.latency_ns)
