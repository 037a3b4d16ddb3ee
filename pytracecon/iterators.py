"""Runs a BPF iterator: its program is called for each of what there is, and what it writes can be read."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pytracecon.errors import PytraceconError, UnsupportedKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytracecon._libbpf import Program

_ROOM = 1 << 16  # the kernel's own buffer has 32 KiB
EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def output(program: Program, link_info: bytes | None = None) -> Iterator[bytes]:
    """What it writes in one pass; nothing stays attached. `link_info` is a union bpf_iter_link_info.

    A leaf of `pytracecon.errors` if it does not run; OSError if this process is out of memory or files.
    """
    try:
        with program.attach_iter(link_info) as link:
            handle = link.iter_create()
            try:
                yield from _read(handle)
            finally:
                os.close(handle)
    except OSError as error:
        if isinstance(error, PytraceconError) or error.errno in EXHAUSTED:
            raise
        raise UnsupportedKernel(f"running BPF iterator {program.name} failed: {error.strerror}") from error


def run(program: Program, link_info: bytes | None = None) -> None:
    """The same for what writes nothing."""
    for _ in output(program, link_info):
        pass


def _read(handle: int) -> Iterator[bytes]:
    while True:
        try:
            written = os.read(handle, _ROOM)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # it stopped to let others run
                raise
            continue
        if not written:
            return
        yield written
