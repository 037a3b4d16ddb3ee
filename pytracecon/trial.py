"""`Trial`: what a kernel refuses is found by trying, and what is chosen next follows from that."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pytracecon import privileges, uprobe_multi
from pytracecon.errors import PytraceconError, UnsupportedKernel
from pytracecon.probes import NEEDS, Candidate, Need, Probe, candidates, has_kprobes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytracecon import _libbpf
    from pytracecon.filters import Filters

__all__ = ["Trial", "outcome", "refuse_whole_rungs", "require"]

_TRACING, _TRACE_FENTRY = 26, 24  # BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY of linux/bpf.h


class Trial:
    """What was learnt so far: programs that this kernel refused, and why."""

    def __init__(self, refused: dict[str, PytraceconError] | None = None) -> None:
        """`refused`: what is known already; what is learnt is added."""
        self.refused = {} if refused is None else refused
        self.waits = {need.name: what for need in NEEDS if (what := need.waits) is not None}
        """Needs whose programs are loaded and not attached yet, and what they wait for."""

    def choose(self, need: Need, filters: Filters) -> Candidate | None:
        for candidate in candidates(need, filters):
            if not any(name in self.refused for name in candidate.required):
                return candidate
        return None

    def refuse_rung(self, rung: str, cause: PytraceconError) -> None:
        for candidate in (each for need in NEEDS for each in need.candidates if each.rung == rung):
            self.refused.update(dict.fromkeys((*candidate.required, *candidate.extras), cause))

    def programs(self, candidate: Candidate) -> list[str]:
        usable = [name for name in candidate.either if name not in self.refused][:1]
        extras = [name for name in candidate.extras if name not in self.refused]
        return [*candidate.programs, *extras, *usable]


def refuse_whole_rungs(lib: _libbpf.Libbpf, trial: Trial) -> None:
    """Questions that cost nothing, and save loading all programs once for each answer that is no."""
    if not uprobe_multi.known(lib):
        cause = UnsupportedKernel("this kernel has no links of many uprobes (Linux 6.6 has)")
        trial.refused.update(dict.fromkeys(("resolver_enter_multi", "resolver_return_multi"), cause))
    if not has_kprobes():
        trial.refuse_rung("kprobe", UnsupportedKernel("this kernel has no kprobes (CONFIG_KPROBES)"))
    try:
        # Type 1 is no function, so it never loads: a kernel that knows fentry looks at that, and one that does not
        # let it happen says so before.
        os.close(lib.prog_load(_TRACING, uprobe_multi.RETURN_ZERO, expected_attach_type=_TRACE_FENTRY, attach_btf_id=1))
    except OSError as error:
        if error.errno == errno.EPERM and not privileges.missing_capabilities("fentry/"):
            cause = UnsupportedKernel("this kernel does not let fentry programs load, not even for root (EPERM)")
            trial.refuse_rung("fentry", cause)


def require(needs: list[Need], chosen: dict[str, Candidate | None], filters: Filters, trial: Trial) -> None:
    """Raise for an essential need that is not met, and for any that the forced rung could meet and does not."""
    rung = filters.probes
    for need in needs:
        if chosen[need.name] is not None or need.name in trial.waits or not (need.essential or rung != "auto"):
            continue
        cause = next(
            trial.refused[name]
            for candidate in candidates(need, filters)
            for name in candidate.required
            if name in trial.refused
        )
        if rung == "auto":
            raise cause
        raise UnsupportedKernel(f"--probes {rung} does not work here ({cause}): use --probes auto") from cause


def outcome(
    needs: list[Need], chosen: dict[str, Candidate | None], attached: set[str], trial: Trial
) -> Iterator[Probe]:
    """Every program that was attached or refused on the way to what was chosen."""
    for need in needs:
        for candidate in need.candidates:
            for name in (*candidate.required, *candidate.extras, *candidate.either):
                if candidate is chosen[need.name] and name in attached:
                    if name not in candidate.loaded:  # that is another need's, or run by hand
                        yield Probe(need.name, candidate.rung, name, attached=True)
                elif name in trial.refused:
                    yield Probe(need.name, candidate.rung, name, attached=False, detail=str(trial.refused[name]))
                elif candidate is chosen[need.name] and need.name in trial.waits:
                    yield Probe(need.name, candidate.rung, name, attached=False, detail=trial.waits[need.name])
            if candidate is chosen[need.name]:
                break
