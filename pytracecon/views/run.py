"""What `pytracecon run` ends with: lines for people, or one JSON document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from pytracecon.connections import Connection
from pytracecon.running import exit_status
from pytracecon.summary import Accepted, Destination, Reached, Summary
from pytracecon.text import safe
from pytracecon.views.wording import UNKNOWN, duration, endpoint, host, several, size

__all__ = ["document", "notice", "text", "violations"]

_MOST = 50
_MOST_ADDRESSES = 6
_LONGEST_NAME = 64
_HEADER = ("REMOTE", "MADE", "LATENCY min/median/max", "OUT", "IN", "FAILED")
_RIGHT_ALIGNED = (False, True, False, True, True, False)
_REASONS = {"timeout": "timed out", "no_address": "no address"}


def document(command: Sequence[str], ended: int, seconds: float, summary: Summary, left: Mapping[int, str]) -> str:
    """`ended` is the command's exit status, or -n for signal n; `left` the processes that it left behind."""
    told = {
        "command": list(command),
        "status": exit_status(ended),
        **({"signal": -ended} if ended < 0 else {}),
        "duration_ns": round(seconds * 1e9),
        **summary.document(),
        "left_behind": [{"pid": pid, "comm": comm} for pid, comm in left.items()],
    }
    return json.dumps(told, indent=2) + "\n"


def text(ended: int, seconds: float, summary: Summary, left: Mapping[int, str]) -> str:
    lines = [*_headline(ended, seconds, summary), *_table(summary), *map(_accepted, summary.accepted.values())]
    lines += _shortened(_failed_lookups(summary), len(summary.lookups_failed), "failed lookups")
    lines += _remarks(summary, left)
    return "".join(f"{line}\n" for line in lines)


def notice(ended: int, seconds: float, summary: Summary, left: Mapping[int, str]) -> str:
    """What is said where the rest goes to a file."""
    return "".join(f"{line}\n" for line in [*_headline(ended, seconds, summary), *_remarks(summary, left)])


def violations(connections: Iterable[Connection]) -> list[str]:
    """A line for each that was not allowed; equal ones are counted."""
    return [_violation(each, count) for each, count in Counter(map(Reached.by, connections)).items()]


def _headline(ended: int, seconds: float, summary: Summary) -> Iterator[str]:
    how = f"signal {-ended}" if ended < 0 else f"status {ended}"
    made = _count(summary.connections, "connection") + (f", {summary.failed} failed" if summary.failed else "")
    accepted = sum(each.connections for each in summary.accepted.values())
    failed = summary.lookups_failed.total()
    parts = [made]
    parts += [f"{accepted} accepted"] if accepted else []
    parts += [_count(summary.lookups, "lookup") + (f", {failed} failed" if failed else "")]
    parts += [f"{count} lost ({where})" for where, count in summary.lost.items()] or ["none lost"]
    yield f"pytracecon: {how} after {duration(round(seconds * 1e9))}: {'; '.join(parts)}"


def _table(summary: Summary) -> Iterator[str]:
    shown = summary.in_order()[:_MOST]
    if not shown:
        return
    rows = [_HEADER, *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, _RIGHT_ALIGNED, strict=True)
        ]
        yield ("  " + "  ".join(cells)).rstrip()
        if number and shown[number - 1].host is not None:
            yield f"    {several(list(shown[number - 1].addresses), _MOST_ADDRESSES)}"
    more = len(summary.destinations) - len(shown) + summary.others
    if more:
        yield f"  and {more} more (--format json lists all)"


def _row(each: Destination) -> tuple[str, ...]:
    if each.host is None:
        remote = endpoint(next(iter(each.addresses), None), each.port)
    else:
        remote = f"{host(each.host, _LONGEST_NAME)}:{UNKNOWN if each.port is None else each.port}"
    latency = each.latency()
    made = str(each.connections) + (f" ({each.still_open} open)" if each.still_open else "")
    moved = each.connections > each.still_open
    return (
        remote,
        made,
        "" if latency is None else _latency(latency),
        size(each.tx_bytes) if moved else "",
        size(each.rx_bytes) if moved else "",
        ", ".join(f"{count} {_REASONS.get(why, why)}" for why, count in each.failures.most_common()),
    )


def _latency(latency: tuple[int, int, int]) -> str:
    """With its unit once, if all three have the same."""
    said = [duration(each).rpartition(" ") for each in latency]
    if len({unit for *_, unit in said}) > 1:
        return " / ".join("".join(each) for each in said)
    return f"{' / '.join(number for number, *_ in said)} {said[0][2]}"


def _accepted(each: Accepted) -> str:
    port = UNKNOWN if each.port is None else each.port
    still_open = f" ({each.still_open} open)" if each.still_open else ""
    return (
        f"  accepted {each.connections} on port {port}{still_open}: {size(each.tx_bytes)} out, {size(each.rx_bytes)} in"
    )


def _failed_lookups(summary: Summary) -> Iterator[str]:
    for (name, result), count in summary.lookups_failed.most_common():
        yield (
            f"  lookup of {UNKNOWN if name is None else host(name, _LONGEST_NAME)} failed: "
            f"{result or UNKNOWN} ({count})"
        )


def _remarks(summary: Summary, left: Mapping[int, str]) -> Iterator[str]:
    lines = (f"  {_violation(each, count)}" for each, count in summary.not_allowed.items())
    yield from _shortened(lines, len(summary.not_allowed), "that are not allowed")
    if summary.guard is not None and summary.lost:
        yield "  something was lost: whether all that was reached is allowed is not known"
    if left:
        named = [f"{safe(comm)} ({pid})" for pid, comm in left.items()]
        yield f"  left behind, and not traced any further: {several(named, _MOST)}"


def _violation(each: Reached, count: int) -> str:
    who = f"{UNKNOWN if each.comm is None else safe(each.comm)} ({UNKNOWN if each.pid is None else each.pid})"
    name = "" if each.host is None else f"{host(each.host, _LONGEST_NAME)}, "
    return f"not allowed: {who} to {name}{endpoint(each.address, each.port)} ({count})"


def _shortened(lines: Iterator[str], total: int, what: str) -> Iterator[str]:
    yield from islice(lines, _MOST)
    if total > _MOST:
        yield f"  and {total - _MOST} more {what} (--format json lists all)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
