"""The names that somebody used for one address, as a chain of runs, the latest first.

A run is a name that was claimed, and claimed again while it was alive and no other name came in between. So a program
that asks a thousand times a second for one name has one run, and what was true a moment ago can still be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["LONGEST", "Claim", "Run", "alive", "inserted", "kept", "listed"]

LONGEST = 8
"""Runs in a chain. The ninth name that is alive at once for one address costs the oldest."""


class Claim(NamedTuple):
    """A name that may be used for an address, as of some moment."""

    name: str
    source: str
    at: int
    """When it was answered: the latest answer up to that moment."""
    until: int
    """It is over from then on."""


@dataclass(slots=True, eq=False)
class Run:
    """`name`, claimed first at `since`, last `at`, and alive in all the time `until` it is over."""

    name: str
    source: str
    since: int
    at: int
    until: int
    older: Run | None = None


def alive(chains: list[Run], at: int) -> list[Claim]:
    """What was claimed up to `at` and alive then, each name once, latest first."""
    found = []
    for newest in chains:
        run: Run | None = newest
        while run is not None:
            if run.since <= at < run.until:
                # When a run that went on was renewed before is not known; its beginning is.
                found.append(Claim(run.name, run.source, run.at if run.at <= at else run.since, run.until))
            run = run.older
    if len(found) < 2:
        return found
    found.sort(key=_latest, reverse=True)
    latest: dict[str, Claim] = {}
    for claim in found:
        latest.setdefault(claim.name, claim)
    return list(latest.values())


def inserted(newest: Run, name: str, source: str, at: int, until: int) -> tuple[Run, int, int]:
    """The chain with one more claim, by how many runs it grew, and how many living names were lost to its bound."""
    runs = listed(newest)
    before = len(runs)
    place = next((index for index, run in enumerate(runs) if run.at <= at), before)
    if place and _same(later := runs[place - 1], name, source) and later.since <= at:
        later.until = max(later.until, until)
    elif place < before and _same(earlier := runs[place], name, source) and at <= earlier.until:
        earlier.at = at
        earlier.until = max(earlier.until, until)
    else:
        # Asked again, a name does not die before it would have.
        until = max([until, *(run.until for run in runs[place:] if run.name == name and at < run.until)])
        runs.insert(place, Run(name, source, at, at, until))
    lost = _shorten(runs) if len(runs) > LONGEST else 0
    return _chained(runs), len(runs) - before, lost


def listed(newest: Run | None) -> list[Run]:
    """The chain, latest first."""
    runs = []
    while newest is not None:
        runs.append(newest)
        newest = newest.older
    return runs


def kept(newest: Run, over: int) -> tuple[Run | None, int]:
    """The chain without the runs that were over at `over`, and how many these were."""
    runs = listed(newest)
    left = [run for run in runs if run.until > over]
    return (_chained(left) if left else None), len(runs) - len(left)


def _latest(claim: Claim) -> int:
    return claim.at


def _same(run: Run, name: str, source: str) -> bool:
    return run.name == name and run.source == source


def _chained(runs: list[Run]) -> Run:
    older = None
    for run in reversed(runs):
        run.older = older
        older = run
    return runs[0]


def _shorten(runs: list[Run]) -> int:
    """Take one run out: best one that went on in a later one, then one that is over, last the oldest, which is lost.

    So of at most eight names none is missing as of the newest moment, however often each was claimed.
    """
    for index in range(len(runs) - 1, 0, -1):
        run = runs[index]
        for later in reversed(runs[:index]):
            if later.name == run.name and later.since <= run.until:
                later.since = min(later.since, run.since)
                later.until = max(later.until, run.until)
                del runs[index]
                return 0
    newest = runs[0].at
    for index in range(len(runs) - 1, 0, -1):
        if runs[index].until <= newest:
            del runs[index]
            return 0
    del runs[-1]
    return 1
