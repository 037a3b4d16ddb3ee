"""The C library's heap, in a command that runs for weeks."""

from __future__ import annotations

import ctypes

__all__ = ["give_large_blocks_back"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 1 << 20
_SPARE = 4 << 20


def give_large_blocks_back() -> None:
    """From now on what takes a megabyte is the system's again as soon as it is free.

    Python's tables are copied from time to time as their entries come and go. After the first copy glibc puts such
    blocks into its heap, where something small soon lies in the hole that was left: a tracer grew by 2.6 MB every ten
    minutes. What a batch takes is less and stays in the heap, and some room at its end too: to ask the system for that
    each time took as long as all else. Other C libraries have no such switches, and musl no need of them.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _SPARE)
