"""A C library in which lookups happen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from pytracecon.libcs.elf import Elf, NotALibc

__all__ = ["FUNCTIONS", "Flavour", "Libc", "recognise"]

Flavour = Literal["glibc", "musl"]

FUNCTIONS = ("getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyname_r", "gethostbyname2_r")

# A function that only this library has. Others (bionic, uClibc) lay out what getaddrinfo returns in another way.
_MARKS: tuple[tuple[Flavour, str], ...] = (("glibc", "gnu_get_libc_version"), ("musl", "__dls3"))


@dataclass(eq=False, slots=True)
class Libc:
    """Whoever was given it closes it; what is attached to `attach_path` by then stays attached."""

    descriptor: int
    path_shown: str
    """As it was found, for people: escaped, and below /proc/PID/root if it lies in the root of another."""
    device: int
    """`st_dev` and `st_ino`. The kernel's own inode on overlayfs is another, which no user can see."""
    inode: int
    flavour: Flavour
    offsets: dict[str, tuple[int, ...]]
    """Of each function that it has, where in the file it begins; more than once if it has several versions."""

    @property
    def attach_path(self) -> str:
        """A path to this very file, whatever lies at its old place; until it is closed."""
        return f"/proc/self/fd/{self.descriptor}"

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def recognise(descriptor: int) -> tuple[Flavour, dict[str, tuple[int, ...]]]:
    """Which C library a file is, and where its functions are. NotALibc if it is none that is known, or lies."""
    elf = Elf(descriptor)
    flavour = next((flavour for flavour, mark in _MARKS if elf.functions(mark)), None)
    if flavour is None:
        raise NotALibc("it is neither glibc nor musl")
    offsets = {name: found for name in FUNCTIONS if (found := elf.functions(name))}
    if not offsets:
        raise NotALibc("it defines no function that looks names up")
    return flavour, offsets
