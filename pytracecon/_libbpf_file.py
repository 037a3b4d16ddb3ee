"""Finding the shared library: the system's libbpf, or the one that somebody gave the path of."""

from __future__ import annotations

import ctypes
import errno
import stat
from pathlib import Path

from pytracecon._libbpf_api import FLOOR
from pytracecon.errors import MissingLibbpf

_INSTALL = "install libbpf 1.1 or newer (Debian, Ubuntu: apt install libbpf1; Fedora: dnf install libbpf)"


def dlopen_system() -> tuple[ctypes.CDLL, str]:
    # By soname, never by ctypes.util.find_library: that runs ldconfig, gcc or ld to find out.
    try:
        return _checked(ctypes.CDLL("libbpf.so.1", use_errno=True), "libbpf.so.1"), "libbpf.so.1"
    except OSError as error:
        reason = error
    try:
        _checked(ctypes.CDLL("libbpf.so.0", use_errno=True), "libbpf.so.0")
    except OSError:
        raise MissingLibbpf(f"libbpf is missing ({reason}): {_INSTALL}") from reason
    raise AssertionError("libbpf.so.0 passed for libbpf 1")


def dlopen_file(path: str) -> tuple[ctypes.CDLL, str]:
    try:
        require_regular(path)
        # Absolute, or dlopen would look for a bare name in the system's folders.
        return _checked(ctypes.CDLL(str(Path(path).resolve()), use_errno=True), path), path
    except OSError as error:
        text = f"{path} cannot be used as libbpf ({cause(error)}): give the path of a libbpf.so.1, or {_INSTALL}"
        raise MissingLibbpf(text) from error


def _checked(library: ctypes.CDLL, path: str) -> ctypes.CDLL:
    if not hasattr(library, "bpf_object__load"):
        raise MissingLibbpf(f"{path} is a shared library but no libbpf: give the path of a libbpf.so.1, or {_INSTALL}")
    if not hasattr(library, "libbpf_major_version"):  # since 0.6
        raise MissingLibbpf(f"{path} is libbpf 0.x, 1.1 is needed: {_INSTALL}")
    version = (library.libbpf_major_version(), library.libbpf_minor_version())
    if version < FLOOR:
        raise MissingLibbpf(f"{path} is libbpf {version[0]}.{version[1]}, 1.1 is needed: {_INSTALL}")
    return library


def require_regular(path: str) -> None:
    """OSError unless it is a regular file: a FIFO would block whoever opens it."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def cause(error: OSError) -> str:
    return (error.strerror or str(error)).rpartition(": ")[2]
