"""What attaches here, found by attaching everything once; and what a tracer would take of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytracecon import existing, listing, loader
from pytracecon.errors import PytraceconError
from pytracecon.filters import Filters
from pytracecon.probes import NEEDS, WATCHED, Candidate, Need, Probe


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """`reason` is why it does not work. `without` are programs that it can do without and has to, and why."""

    rung: str
    programs: list[str]
    works: bool
    reason: str | None = None
    without: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NeedReport:
    """`rung` and `programs` are what a tracer takes: None and [] if nothing meets the need, which `costs` so much."""

    need: str
    essential: bool
    rung: str | None
    programs: list[str]
    costs: str
    candidates: list[CandidateReport]


def try_all(filters: Filters) -> tuple[list[NeedReport], PytraceconError | None]:
    """One report a need, in the order of `NEEDS`; and why there can be no tracer, if there can be none."""
    probes: list[Probe] = []
    problem = None
    # With a process to follow and states to tell every need is wanted that can be met, and with this process nobody
    # else is recorded meanwhile.
    filters = filters._replace(pids=(os.getpid(),), events=filters.events | WATCHED | {"flow"})
    try:
        with contextlib.closing(loader.load(filters, also=("snapshot",))) as loaded:
            existing.read_existing(loaded)
            listing.try_rows(loaded)
            probes = loaded.probes
    except PytraceconError as error:
        problem = error
    try:
        outcome = loader.survey(filters)
    except PytraceconError as error:
        # It is about all programs together, or about what they are loaded with.
        outcome = {name: error for need in NEEDS for candidate in need.candidates for name in _names(candidate)}
    return [_of_need(need, probes, outcome) for need in NEEDS], problem


def _of_need(need: Need, probes: list[Probe], outcome: Mapping[str, PytraceconError | None]) -> NeedReport:
    taken = [probe for probe in probes if probe.need == need.name and probe.attached]
    return NeedReport(
        need.name,
        need.essential,
        taken[0].rung if taken else None,
        [probe.name for probe in taken],
        need.costs,
        [_of_candidate(candidate, outcome) for candidate in need.candidates],
    )


def _of_candidate(candidate: Candidate, outcome: Mapping[str, PytraceconError | None]) -> CandidateReport:
    refused = {name: str(outcome[name]) for name in _names(candidate) if outcome.get(name) is not None}
    reason = next((refused[name] for name in candidate.required if name in refused), None)
    if reason is not None:
        return CandidateReport(candidate.rung, list(candidate.programs), works=False, reason=reason)
    either = [name for name in candidate.either if name in outcome and name not in refused][:1]
    missing = (*candidate.extras, *(() if either else candidate.either[-1:]))
    return CandidateReport(
        candidate.rung,
        [*candidate.programs, *(name for name in candidate.extras if name not in refused), *either],
        works=True,
        without={name: refused[name] for name in missing if name in refused},
    )


def _names(candidate: Candidate) -> tuple[str, ...]:
    return (*candidate.required, *candidate.extras, *candidate.either)
