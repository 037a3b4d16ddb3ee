"""`FewTypes`: of the kernel's own BTF what the programs ask for. libbpf relocates by it in a tenth of the time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon._libbpf_btf import KERNEL_BTF
from pytracecon._ring import lib
from pytracecon.image import object_image
from pytracecon.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FewTypes", "chosen_ahead"]


class FewTypes:
    """begin() chooses them, in a thread of its own. The file is there until close()."""

    @classmethod
    def begun(cls, image: bytes) -> FewTypes:
        """Those that are chosen ahead for this image; else it begins now."""
        for at, each in enumerate(_ahead):
            if each.image == image:
                return _ahead.pop(at)
        types = cls(image)
        types.begin()
        return types

    def __init__(self, image: bytes) -> None:
        self.image = image
        self._whole = False
        self._handle = os.memfd_create("pytracecon: types")
        self._task = Task("chooses types", self._choose)
        self.begin = self._task.begin

    def _choose(self) -> None:
        path = os.fsencode(KERNEL_BTF)
        self._whole = bool(lib.few_types_of(path, self.image, len(self.image), self._handle))

    def path(self) -> str | None:
        """Where they are; None if they could not be chosen: then libbpf takes all. Waits, and raises its error."""
        self._task.result()
        return f"/proc/self/fd/{self._handle}" if self._whole else None

    def close(self) -> None:
        self._task.wait()
        os.close(self._handle)


_ahead: list[FewTypes] = []


@contextlib.contextmanager
def chosen_ahead() -> Iterator[None]:
    """While more of Python is imported, on another CPU. They are for who loads programs within."""
    if not Path(KERNEL_BTF).exists():
        yield
        return
    with contextlib.ExitStack() as unless_taken:
        types = FewTypes(object_image())
        unless_taken.callback(_give_up, types)
        _ahead.append(types)
        types.begin()
        yield


def _give_up(types: FewTypes) -> None:
    if types in _ahead:
        _ahead.remove(types)
        types.close()
