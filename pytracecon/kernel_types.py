"""`FewTypes`: of the kernel's own BTF what the programs ask for. libbpf relocates by it in a tenth of the time."""

from __future__ import annotations

import os

from pytracecon._libbpf_btf import KERNEL_BTF
from pytracecon._ring import lib
from pytracecon.tasks import Task

__all__ = ["FewTypes"]


class FewTypes:
    """begin() chooses them, in a thread of its own. The file is there until close()."""

    def __init__(self, image: bytes) -> None:
        self._image = image
        self._whole = False
        self._handle = os.memfd_create("pytracecon: types")
        self._task = Task("chooses types", self._choose)
        self.begin = self._task.begin

    def _choose(self) -> None:
        with open(KERNEL_BTF, "rb", buffering=0) as file:
            kernel = file.read()
        self._whole = bool(lib.few_types(kernel, len(kernel), self._image, len(self._image), self._handle))

    def path(self) -> str | None:
        """Where they are; None if they could not be chosen: then libbpf takes all. Waits, and raises its error."""
        self._task.result()
        return f"/proc/self/fd/{self._handle}" if self._whole else None

    def close(self) -> None:
        self._task.wait()
        os.close(self._handle)
