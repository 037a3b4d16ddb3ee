"""The BPF programs of this package, as they were compiled."""

from __future__ import annotations

import os
from pathlib import Path

from pytracecon.errors import UnsupportedKernel

__all__ = ["object_image"]


def object_image() -> bytes:
    """The compiled object for this machine, from the package."""
    machine = os.uname().machine
    path = Path(__file__).parent / "bpf" / f"pytracecon-{machine}.bpf.o"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnsupportedKernel(
            f"there is no BPF object for {machine} in this installation ({path}): x86-64 and arm64 are "
            "supported; in a source tree, run `make -C bpf`"
        ) from None
