"""The diagnosis for people: what there is, a table of needs with notes, what is missing and what it costs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from pytracecon.doctor.machine import Machine
from pytracecon.doctor.needs import CandidateReport, NeedReport
from pytracecon.doctor.privileges import NeedPrivileges
from pytracecon.probes import RUNGS
from pytracecon.text import one_line
from pytracecon.views.wording import size

WIDTH = 80
_LABEL = 14
_CELL = 11


class Notes:
    """Texts below a table, numbered as they come up; the same text has one number."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, texts: list[str]) -> str:
        for text in texts:
            if text not in self._texts:
                self._texts.append(text)
        numbers = sorted({self._texts.index(text) + 1 for text in texts})
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> Iterator[str]:
        for number, text in enumerate(self._texts, 1):
            yield from _wrapped(f"[{number}] ", text)


def lines(
    machine: Machine,
    needs: list[NeedReport],
    *,
    traceable: bool,
    privileges: list[NeedPrivileges] | None = None,
) -> Iterator[str]:
    for label, text in _findings(machine):
        yield from _wrapped(f"{label:{_LABEL}}", text)
    yield ""
    notes = Notes()
    yield from _table(needs, notes)
    remarks = list(notes.lines())
    yield from remarks
    if privileges is not None:
        yield ""
        yield from _privileges(privileges)
    # What else is missing does not matter where nothing is traced.
    unmet = [need for need in needs if need.rung is None and (traceable or need.essential)]
    if unmet or remarks:
        yield ""
    for need in unmet:
        yield from _wrapped("", f"Without {need.need}: {need.costs}.", indent=2)
    yield f"TCP connections {'can' if traceable else 'cannot'} be traced."


def _findings(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "kernel", f"Linux {machine.kernel.release} {machine.kernel.machine}"
    btf = machine.btf
    yield "BTF", btf.problem or f"{btf.path or 'found by libbpf'}, {size(btf.size or 0)}"
    lockdown = machine.lockdown
    yield "lockdown", ": ".join(part for part in (lockdown.mode or "unknown", lockdown.problem) if part)
    yield "capabilities", ", ".join(machine.capabilities.effective) or "none of those that matter"
    for name, why in machine.capabilities.missing.items():
        yield "", f"missing: {name} ({why})"
    yield (
        "sysctls",
        ", ".join(
            f"{name.rpartition('.')[2]} {'unknown' if value is None else value}"
            for name, value in machine.sysctls.items()
        ),
    )
    if machine.memlock.charged:
        yield "memlock", _memlock(machine)
    libbpf = machine.libbpf
    yield "libbpf", libbpf.problem or f"{libbpf.version}, {libbpf.path}"
    tracefs = machine.tracefs
    yield "tracefs", tracefs.problem or ", ".join(tracefs.mounts) or "not mounted, and reached without a mount"
    cgroup2 = machine.cgroup2
    beside = ", cgroup v1 beside it" if cgroup2.hybrid and cgroup2.mounts else ""
    yield "cgroup2", cgroup2.problem or ", ".join(cgroup2.mounts) + beside


def _memlock(machine: Machine) -> str:
    hard = machine.memlock.hard
    if hard is None or "CAP_SYS_RESOURCE" in machine.capabilities.effective:
        return "BPF memory counts against RLIMIT_MEMLOCK, which libbpf raises"
    return f"at most {size(hard)}, and BPF memory counts against it"


def _table(needs: list[NeedReport], notes: Notes) -> Iterator[str]:
    """A column a rung; what attaches, not only what is taken."""
    rungs = list(dict.fromkeys([*RUNGS, *(candidate.rung for need in needs for candidate in need.candidates)]))
    yield _row("NEED", [rung.upper() for rung in rungs], "TAKEN")
    for need in needs:
        cells = [_cell([each for each in need.candidates if each.rung == rung], notes) for rung in rungs]
        yield _row(need.need, cells, need.rung or "none")


def _privileges(takes: list[NeedPrivileges]) -> Iterator[str]:
    """Names of capabilities without what all begin with."""
    yield f"{'PRIVILEGES':{_LABEL}}{'TO START':{2 * _CELL + 4}}TO GO ON, AS ANY USER"
    for each in takes:
        start = "not met" if each.starting is None else short(each.starting)
        if each.instead is not None:
            start += f"; in part {short(each.instead)}"
        yield f"{each.need:{_LABEL}}{start:{2 * _CELL + 3}} {short(each.running)}"


def short(names: list[str]) -> str:
    """Capabilities, for a table."""
    return ", ".join(name.removeprefix("CAP_") for name in names) or "-"


def _row(name: str, cells: list[str], taken: str) -> str:
    return f"{name:{_LABEL}}" + "".join(f"{cell:{_CELL}}" for cell in cells) + taken


def _cell(candidates: list[CandidateReport], notes: Notes) -> str:
    """Of one rung: the best that works, with why nothing better does and what it has to do without."""
    if not candidates:
        return "-"
    reasons: list[str] = []
    for candidate in candidates:
        if candidate.works:
            return "ok" + notes.mark([*reasons, *candidate.without.values()])
        if candidate.reason is not None:
            reasons.append(candidate.reason)
    return "no" + notes.mark(reasons)


def _wrapped(first: str, text: str, *, indent: int | None = None) -> list[str]:
    """Within WIDTH, but no word is broken: paths are to be copied."""
    return textwrap.wrap(
        one_line(text),
        WIDTH - 1,
        initial_indent=first,
        subsequent_indent=" " * (len(first) if indent is None else indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
