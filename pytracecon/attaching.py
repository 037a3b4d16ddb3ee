"""Attaches what was loaded, need by need; what is refused the trial knows then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytracecon.attach import attach
from pytracecon.errors import LockedDown, MissingBTF, MissingPrivilege, PytraceconError, UnsupportedKernel

if TYPE_CHECKING:
    from pytracecon import _libbpf
    from pytracecon.meanwhile import Meanwhile
    from pytracecon.objects import Objects
    from pytracecon.probes import Candidate, Need
    from pytracecon.trial import Trial
    from pytracecon.uprobes import LibcUprobes

__all__ = ["FATAL", "attach_need", "attach_to_libcs"]

FATAL = (MissingPrivilege, MissingBTF, LockedDown)
"""Another candidate would meet the same."""


def attach_need(
    opened: Objects,
    need: Need,
    candidate: Candidate | None,
    names: list[str],
    trial: Trial,
    links: list[_libbpf.Link],
) -> bool:
    """False if something that the candidate cannot do without was refused, or another of `either` can be tried."""
    if candidate is None or need.name in ("existing", "snapshot", "libc lookups") or need.name in trial.waits:
        return True
    for name in names:
        try:
            links += attach(opened.programs[name])
        except PytraceconError as error:
            if isinstance(error, FATAL) and need.essential:
                raise
            trial.refused[name] = error
            if name in candidate.programs or name in candidate.either:
                return False
    return True


def attach_to_libcs(
    opened: Objects, candidate: Candidate | None, trial: Trial, meanwhile: Meanwhile
) -> LibcUprobes | None:
    """None if lookups of libcs are not wanted, or cannot be seen: `trial` knows why, then."""
    if candidate is None:
        return None
    # Not imported before it is clear that they are wanted: they bring half the standard library along.
    from pytracecon.uprobes import LibcUprobes  # noqa: PLC0415

    try:
        libcs = LibcUprobes(opened, candidate.programs, meanwhile)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(libcs.detach)
            libcs.try_in_a_sandbox()
            libcs.attach()
            on_failure.pop_all()
    except (PytraceconError, OSError) as error:
        cause = error if isinstance(error, PytraceconError) else UnsupportedKernel(f"libcs cannot be found: {error}")
        trial.refused.update(dict.fromkeys((*candidate.programs, *candidate.extras), cause))
        return None
    return libcs
