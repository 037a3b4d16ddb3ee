"""What was there before the tracer: open connections with their owners, and children of the processes to follow."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import settings
from pytracecon.errors import PytraceconError, UnsupportedKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytracecon import _libbpf
    from pytracecon.filters import Filters
    from pytracecon.loader import Loaded

_BUFFER = 4096
_EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def read_existing(loaded: Loaded) -> PytraceconError | None:
    """Run the iterator once: it fills the kernel's own tables with what every process holds open now.

    What keeps it from running costs this need only, and its probe says so; it is returned. OSError if this process is
    out of memory or files.
    """
    for place, probe in enumerate(loaded.probes):
        if probe.need == "existing" and probe.attached:
            try:
                run_iterator(loaded.object.programs[probe.name])
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    raise
                refused = error if isinstance(error, PytraceconError) else _not_run(probe.name, error)
                loaded.probes[place] = replace(probe, attached=False, detail=str(refused))
                return refused
    return None


def _not_run(name: str, error: OSError) -> UnsupportedKernel:
    return UnsupportedKernel(f"running BPF iterator {name} failed: {error.strerror}")


def run_iterator(program: _libbpf.Program, link_info: bytes | None = None) -> None:
    """Once over everything; `link_info` says over what, where that is not all there is. What it says is not kept."""
    with program.attach_iter(link_info) as link:
        handle = link.iter_create()
        try:
            while True:
                try:
                    if not os.read(handle, _BUFFER):
                        return
                except OSError as error:
                    if error.errno != errno.EAGAIN:  # it stopped to let others run
                        raise
        finally:
            os.close(handle)


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
