"""One BPF link for many places in a file, by the system call itself: libbpf does it from 1.3 on, Debian 12's is 1.1."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from ctypes import Structure, c_uint32, c_uint64
from typing import TYPE_CHECKING

from pytracecon.errors import UnsupportedKernel
from pytracecon.refusals import caused_by

if TYPE_CHECKING:
    from pytracecon._libbpf import Libbpf

__all__ = ["ATTACH_TYPE", "KPROBE", "RETURN_ZERO", "MultiLink", "known"]

ATTACH_TYPE = 48  # BPF_TRACE_UPROBE_MULTI of linux/bpf.h
_BPF_LINK_CREATE = 28
_RETPROBE = 1  # BPF_F_UPROBE_MULTI_RETURN
_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280}


class _LinkCreate(Structure):
    """The part of union bpf_attr that BPF_LINK_CREATE takes for uprobes."""

    _fields_ = (
        ("prog_fd", c_uint32),
        ("target_fd", c_uint32),
        ("attach_type", c_uint32),
        ("flags", c_uint32),
        ("path", c_uint64),
        ("offsets", c_uint64),
        ("ref_ctr_offsets", c_uint64),
        ("cookies", c_uint64),
        ("cnt", c_uint32),
        ("multi_flags", c_uint32),
        ("pid", c_uint32),
        ("padding", c_uint32),
    )


KPROBE = 2  # BPF_PROG_TYPE_KPROBE
RETURN_ZERO = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))
"""The shortest program."""


def known(lib: Libbpf) -> bool:
    """Whether the kernel has such links: then it objects to a folder as the file to attach to, not to the kind."""
    try:
        program = lib.prog_load(KPROBE, RETURN_ZERO, expected_attach_type=ATTACH_TYPE)
    except OSError:
        return False
    try:
        MultiLink(program, "/", [0]).close()
    except UnsupportedKernel as refused:
        return refused.errno == errno.EBADF
    finally:
        os.close(program)
    return True


class MultiLink:
    """Keeps a program attached to all `offsets` of the file at `path`, each with its cookie, until close().

    The program was loaded for `ATTACH_TYPE`. `pid` 0 is every process. UnsupportedKernel if the kernel refuses.
    """

    def __init__(
        self,
        prog_fd: int,
        path: str,
        offsets: Sequence[int],
        *,
        cookies: Sequence[int] = (),
        pid: int = 0,
        retprobe: bool = False,
    ) -> None:
        where = ctypes.create_string_buffer(os.fsencode(path))
        places = (ctypes.c_ulong * len(offsets))(*offsets)
        tags = (c_uint64 * len(cookies))(*cookies)
        attributes = _LinkCreate(
            prog_fd=prog_fd,
            attach_type=ATTACH_TYPE,
            path=ctypes.addressof(where),
            offsets=ctypes.addressof(places),
            cookies=ctypes.addressof(tags) if cookies else 0,
            cnt=len(offsets),
            multi_flags=_RETPROBE if retprobe else 0,
            pid=pid,
        )
        libc = ctypes.CDLL(None, use_errno=True)
        number = _SYSTEM_CALL[os.uname().machine]
        self._fd: int = libc.syscall(number, _BPF_LINK_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes) - 4)
        if self._fd < 0:
            code = ctypes.get_errno()
            known = "the kernel knows no such links (Linux 6.6 does)" if code == errno.EINVAL else os.strerror(code)
            text = f"attaching uprobes to {path} by one link: {known}"
            raise caused_by(UnsupportedKernel(text), OSError(code, os.strerror(code)))

    def close(self) -> None:
        """Detach. Again: nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
