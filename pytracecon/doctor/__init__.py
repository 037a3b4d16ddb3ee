"""`pytracecon doctor`: what of this can run here, what is missing, and what would help.

What attaches is found by attaching it (`needs`), all of it, and not only what a tracer would take; the rest is looked
at (`machine`). `report` writes both for people; `--json` is the same as one document. Its keys are always there; null
means unknown, or that there is none to name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pytracecon import __version__
from pytracecon.commands.console import show
from pytracecon.commands.options import tracer_keywords
from pytracecon.doctor import machine, report
from pytracecon.doctor.machine import Machine
from pytracecon.doctor.needs import NeedReport, try_all
from pytracecon.doctor.privileges import NeedPrivileges, try_privileges
from pytracecon.errors import PytraceconError
from pytracecon.filters import Filters
from pytracecon.outputs.sink import ReaderGone

__all__ = ["Diagnosis", "diagnose", "main"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`problem` is why TCP connections cannot be traced, and the remedy; None if they can."""

    machine: Machine
    needs: list[NeedReport]
    problem: PytraceconError | None
    privileges: list[NeedPrivileges] | None = None
    """None if nobody asked."""

    def document(self) -> dict[str, object]:
        """What `--json` prints."""
        return {
            "version": __version__,
            "ok": self.problem is None,
            "problem": None if self.problem is None else str(self.problem),
            "exit_status": 0 if self.problem is None else self.problem.exit_status,
            **asdict(self.machine),
            "needs": [asdict(need) for need in self.needs],
            "privileges": None if self.privileges is None else [asdict(each) for each in self.privileges],
        }


def diagnose(
    *, btf: str | None = None, libbpf: str | None = None, privileges: bool = False, **keywords: Any
) -> Diagnosis:
    """How a `Tracer` of these keywords would fare. InvalidValue; but a file that cannot be used is a finding.

    With `privileges`, what each need takes of them: that is tried only if TCP connections can be traced.
    """
    filters = Filters.parse(**keywords)._replace(btf=btf, libbpf=libbpf)
    # Looked at first: libbpf raises RLIMIT_MEMLOCK when it loads something where it is charged.
    found = machine.look(filters)
    needs, problem = try_all(filters)
    takes = try_privileges(filters) if privileges and problem is None else None
    return Diagnosis(found, needs, problem, takes)


def main(options: argparse.Namespace) -> int:
    """Print the report. 0 if TCP connections can be traced; otherwise raises what keeps them from it."""
    diagnosis = diagnose(privileges=options.privileges, **tracer_keywords(options))
    if options.json:
        text = json.dumps(diagnosis.document(), indent=2)
    else:
        text = "\n".join(
            report.lines(
                diagnosis.machine,
                diagnosis.needs,
                traceable=diagnosis.problem is None,
                privileges=diagnosis.privileges,
            )
        )
    with contextlib.suppress(ReaderGone):  # what was found counts, read or not
        show(text + "\n")
    if diagnosis.problem is not None:
        raise diagnosis.problem
    return 0
