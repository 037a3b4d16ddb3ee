"""What was there before the tracer: open connections with their owners, and children of the processes to follow."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import settings
from pytracecon.errors import PytraceconError
from pytracecon.iterators import EXHAUSTED, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytracecon.filters import Filters
    from pytracecon.loaded import Loaded


def read_existing(loaded: Loaded) -> PytraceconError | None:
    """Run the iterator once: it fills the kernel's own tables with what every process holds open now.

    What keeps it from running costs this need only, and its probe says so; it is returned. OSError if this process is
    out of memory or files.
    """
    for place, probe in enumerate(loaded.probes):
        if probe.need == "existing" and probe.attached:
            try:
                run(loaded.object.programs[probe.name])
            except PytraceconError as refused:
                if isinstance(refused, OSError) and refused.errno in EXHAUSTED:
                    raise
                loaded.probes[place] = probe._replace(attached=False, detail=str(refused))
                return refused
    return None


def follow_children(loaded: Loaded, filters: Filters) -> None:
    """With --children: the processes that the given ones have started already. Later ones the kernel side adds."""
    if not filters.children:
        return
    followed = set(filters.pids)
    added = True
    while added:
        # Until a pass finds nobody new: a process that was born meanwhile has been added by the kernel side.
        parents = {pid: parent for pid, parent in _parents() if parent in followed}
        added = not followed.issuperset(parents)
        for pid in parents.keys() - followed:
            loaded.object.maps["filter_values"].update(settings.pid_member(pid), settings.u32(1))
        followed |= parents.keys()


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                yield int(entry.name), int(status.rpartition(") ")[2].split()[1])
