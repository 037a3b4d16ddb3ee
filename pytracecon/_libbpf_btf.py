"""Type information of a kernel."""

from __future__ import annotations

from ctypes import byref, c_uint32, string_at
from typing import TYPE_CHECKING, Self

from pytracecon.errors import TracerClosed

if TYPE_CHECKING:
    from pytracecon._libbpf import Libbpf

KERNEL_BTF = "/sys/kernel/btf/vmlinux"
NO_KERNEL_BTF = (
    f"the kernel has no BTF ({KERNEL_BTF} is missing): run a kernel built with CONFIG_DEBUG_INFO_BTF, "
    "or give a BTF file of this very kernel (--btf FILE)"
)


class Btf:
    """Type information of a kernel, until close()."""

    def __init__(self, lib: Libbpf, pointer: int) -> None:
        self._lib = lib
        self._pointer: int | None = pointer

    def _open_pointer(self) -> int:
        if self._pointer is None:
            raise TracerClosed("the BTF is closed: load it again")
        return self._pointer

    def find(self, name: str, kind: int) -> int | None:
        """The id of the type of that name and kind (BTF_KIND_STRUCT 4, BTF_KIND_FUNC 12…), None if there is none."""
        try:
            return int(self._lib.call("btf__find_by_name_kind", self._open_pointer(), name.encode(), kind))
        except FileNotFoundError:
            return None

    def raw(self) -> bytes:
        """All of it, in the format of the .BTF section."""
        size = c_uint32()
        pointer = self._lib.call("btf__raw_data", self._open_pointer(), byref(size))
        return string_at(pointer, size.value)

    def close(self) -> None:
        """Free it. Again: nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._lib.call("btf__free", pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
