"""Attaches what was loaded, need by need; what is refused the trial knows then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytracecon.attach import attach
from pytracecon.errors import LockedDown, MissingBTF, MissingPrivilege, PytraceconError, UnsupportedKernel
from pytracecon.prepare import fill
from pytracecon.tasks import Task

if TYPE_CHECKING:
    from pytracecon import _libbpf
    from pytracecon.filters import Filters
    from pytracecon.meanwhile import Meanwhile
    from pytracecon.objects import Objects
    from pytracecon.probes import Candidate, Need
    from pytracecon.trial import Trial
    from pytracecon.uprobes import LibcUprobes

__all__ = ["FATAL", "ToLibcs", "attach_need"]

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


class ToLibcs:
    """Attaches to libcs, in a thread of its own, as soon as `names` are loaded, which is what it attaches: the first
    uprobe waits for RCU, 8 to 20 ms, and the kernel has other programs to verify meanwhile.
    """

    def __init__(
        self, opened: Objects, filters: Filters, candidate: Candidate, names: list[str], meanwhile: Meanwhile
    ) -> None:
        self._opened = opened
        self._filters = filters
        self._candidate = candidate
        self._names = names
        self._meanwhile = meanwhile
        self._libcs: LibcUprobes | None = None
        self._cause: PytraceconError | None = None
        self._begun = False
        self._task = Task("attaches to libcs", self._attach)

    def begin_if_loaded(self) -> None:
        """With the filters' maps filled: nobody's lookup is told that is not wanted. Again, after it began: nothing."""
        if not self._begun and self._opened.loaded(self._names):
            self._begun = True
            fill(self._opened, self._filters)
            self._task.begin()

    def _attach(self) -> None:
        # Not imported before it is clear that they are wanted: they bring half the standard library along.
        from pytracecon.uprobes import LibcUprobes  # noqa: PLC0415

        try:
            with self._opened.lib.trying(), contextlib.ExitStack() as on_failure:
                libcs = LibcUprobes(self._opened, self._candidate.programs, self._meanwhile)
                on_failure.callback(libcs.detach)
                libcs.try_in_a_sandbox()
                libcs.attach()
                on_failure.pop_all()
                self._libcs = libcs
        except PytraceconError as error:
            self._cause = error
        except OSError as error:
            self._cause = UnsupportedKernel(f"libcs cannot be found: {error}")

    def result(self, trial: Trial) -> LibcUprobes | None:
        """Waits. None if lookups of libcs cannot be seen: `trial` knows why, then."""
        self._task.result()
        if self._cause is not None:
            trial.refused.update(dict.fromkeys((*self._candidate.programs, *self._candidate.extras), self._cause))
        return self._libcs

    def close(self) -> None:
        self._task.wait()
        if self._libcs is not None:
            self._libcs.detach()
