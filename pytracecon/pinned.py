"""Maps that somebody else has pinned, and that decide which processes are traced: as the tools of bcc take them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.filters import Filters
    from pytracecon.objects import Objects

__all__ = ["reuse"]

_HASH = 1  # BPF_MAP_TYPE_HASH


def reuse(opened: Objects, filters: Filters) -> None:
    """Before loading: the programs look into the maps that `filters` name. InvalidValue if one has another shape."""
    for option, path, name in (
        ("--cgroupmap", filters.cgroupmap, "pinned_cgroups"),
        ("--mntnsmap", filters.mntnsmap, "pinned_mntns"),
    ):
        if path is not None:
            _reuse(opened, option, path, name)


def _reuse(opened: Objects, option: str, path: str, name: str) -> None:
    own = opened.maps[name]
    right = f"give a pinned hash map with keys of {own.key_size} and values of {own.value_size} bytes"
    try:
        fd, found = opened.lib.open_pinned(path)
    except OSError as error:
        raise InvalidValue(f"{option}: {path} is no pinned map ({os.strerror(error.errno or 0)}); {right}") from error
    try:
        if (found.type, found.key_size, found.value_size) != (_HASH, own.key_size, own.value_size):
            raise InvalidValue(
                f"{option}: {path} is a map of type {found.type} with keys of {found.key_size} and values of "
                f"{found.value_size} bytes; {right}"
            )
        own.reuse(fd)
    finally:
        os.close(fd)
