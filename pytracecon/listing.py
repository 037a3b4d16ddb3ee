"""The iterators that list what is open now. They are loaded when first asked for: a start costs no more."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import _libbpf
from pytracecon.errors import MissingBTF, PytraceconError
from pytracecon.iterators import output
from pytracecon.probes import NEEDS, Probe

if TYPE_CHECKING:
    from pytracecon.filters import Filters
    from pytracecon.loaded import Loaded
    from pytracecon.objects import Objects

__all__ = ["PROGRAMS", "Listing", "try_rows"]

_NEED = next(need for need in NEEDS if need.name == "snapshot")
PROGRAMS = _NEED.candidates[0].programs


class Listing:
    """Of one tracer, which closes what is loaded here together with the rest."""

    def __init__(self, loaded: Loaded, filters: Filters, image: bytes) -> None:
        """A leaf of `pytracecon.errors` where this kernel cannot do it; the tracer's probes say so, then."""
        try:
            self._object = _load(loaded, filters, image)
        except PytraceconError as refused:
            _note(loaded, refused)
            raise
        loaded.later.append(self._object)
        self._loaded = loaded
        _note(loaded, None)

    def rows(self) -> bytes:
        """A struct row for each socket that is open now."""
        try:
            return _rows(self._object)
        except PytraceconError as refused:
            _note(self._loaded, refused)
            raise


def try_rows(loaded: Loaded) -> PytraceconError | None:
    """Where the programs were loaded with the rest: what keeps them from running."""
    if not any(probe.attached and probe.need == _NEED.name for probe in loaded.probes):
        return None
    try:
        _rows(loaded.object)
    except PytraceconError as refused:
        _note(loaded, refused)
        return refused
    return None


def _load(loaded: Loaded, filters: Filters, image: bytes) -> _libbpf.Object:
    if not Path(_libbpf.KERNEL_BTF).exists():
        raise MissingBTF(
            f"a snapshot needs the kernel's own BTF ({_libbpf.KERNEL_BTF}), which this kernel does not have"
        )
    lib = loaded.object.lib
    with ExitStack() as on_failure, lib.trying():
        opened = on_failure.enter_context(lib.open_object(image, btf=filters.btf))
        for name, program in opened.programs.items():
            program.autoload = name in PROGRAMS
        for name, each in opened.maps.items():
            each.reuse(loaded.object.maps[name].fd)
        opened.load()
        on_failure.pop_all()
    return opened


def _note(loaded: Loaded, refused: PytraceconError | None) -> None:
    rung = _NEED.candidates[0].rung
    loaded.probes[:] = [probe for probe in loaded.probes if probe.need != _NEED.name]
    loaded.probes.extend(
        Probe(_NEED.name, rung, name, attached=refused is None, detail="" if refused is None else str(refused))
        for name in PROGRAMS
    )


def _rows(opened: _libbpf.Object | Objects) -> bytes:
    files, *others = (opened.programs[name] for name in PROGRAMS)
    tables = (struct.pack("=I", opened.maps[name].fd) for name in ("socks", "conversations"))
    return b"".join([*output(files), *(row for each in zip(others, tables, strict=True) for row in output(*each))])
