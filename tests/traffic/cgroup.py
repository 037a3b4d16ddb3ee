"""Control groups (v2) of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from traffic.actor import cgroup2_mount
from traffic.network import NAME


@contextmanager
def new_cgroup() -> Iterator[Path]:
    """One with a group `child` in it. Whoever is in them at the end is moved out."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    top = Path(tempfile.mkdtemp(prefix=NAME, dir=mount))
    (top / "child").mkdir()
    yield top
    for folder in (top / "child", top):
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (mount / "cgroup.procs").write_text(pid)
        folder.rmdir()
