"""A map of a BPF object: its settings before it is loaded, its keys and values afterwards."""

from __future__ import annotations

import ctypes
import errno
from ctypes import byref, c_size_t
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytracecon._libbpf_objects import Object

_PER_CPU_MAPS = frozenset({5, 6, 10, 21})  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH, _PERCPU_CGROUP_…


class Map:
    """A map of an Object, which keeps it. Keys and values are bytes, as the kernel has them."""

    def __init__(self, owner: Object, pointer: int, like: Map | None = None) -> None:
        self._object = owner
        self._pointer = pointer
        self.name: str = self._name() if like is None else like.name
        self.type: int = self._call("bpf_map__type") if like is None else like.type
        self.key_size: int = self._call("bpf_map__key_size") if like is None else like.key_size

    def _name(self) -> str:
        name: str = self._call("bpf_map__name").decode()
        # libbpf calls a section's map "pytracecon.rodata", cut to 15 characters; no map of C's has a dot in its name.
        return name if name.startswith(".") or "." not in name else "." + name.rpartition(".")[2]

    def _call(self, function: str, *args: Any) -> Any:
        _ = self._object.pointer  # raises when closed
        return self._object.lib.call(function, self._pointer, *args)

    @property
    def fd(self) -> int:
        """Belongs to the Object: dup it to keep it. OSError before load()."""
        fd = int(self._call("bpf_map__fd"))
        if fd < 0:  # libbpf's -1 is no errno here
            raise OSError(errno.EBADF, f"map {self.name} is not created yet: load the object first")
        return fd

    @property
    def value_size(self) -> int:
        """Bytes of one value; in a per-CPU map, of one CPU's."""
        return int(self._call("bpf_map__value_size"))

    @property
    def max_entries(self) -> int:
        return int(self._call("bpf_map__max_entries"))

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        self._call("bpf_map__set_max_entries", value)

    @property
    def flags(self) -> int:
        return int(self._call("bpf_map__map_flags"))

    @flags.setter
    def flags(self, value: int) -> None:
        self._call("bpf_map__set_map_flags", value)

    def reuse(self, fd: int) -> None:
        """Before load() only: be the map behind `fd`, which may be closed afterwards, instead of a new one."""
        self._call("bpf_map__reuse_fd", fd)

    @property
    def initial_value(self) -> bytes:
        """A copy of what a section's map (".rodata", ".data", ".bss") starts with."""
        size = c_size_t()
        pointer = self._call("bpf_map__initial_value", byref(size))
        return ctypes.string_at(pointer, size.value)

    @initial_value.setter
    def initial_value(self, value: bytes | bytearray) -> None:
        """Before load() only, all of it."""
        self._call("bpf_map__set_initial_value", bytes(value), len(value))

    @property
    def _value_space(self) -> int:
        if self.type not in _PER_CPU_MAPS:
            return self.value_size
        return _round_up_8(self.value_size) * self._object.lib.num_possible_cpus()

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name} has keys of {self.key_size} bytes, this one has {len(key)}")
        return key

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set it; `flags`: BPF_ANY 0, BPF_NOEXIST 1, BPF_EXIST 2. A per-CPU map takes all CPUs' values in a row."""
        if len(value) != self._value_space:
            raise ValueError(f"map {self.name} has values of {self._value_space} bytes, this one has {len(value)}")
        self._object.lib.call("bpf_map_update_elem", self.fd, self._key(key), value, flags)

    def lookup(self, key: bytes) -> bytes | None:
        """None if absent. From a per-CPU map, all CPUs' values in a row: see `lookup_per_cpu()`."""
        value = ctypes.create_string_buffer(self._value_space)
        try:
            self._object.lib.call("bpf_map_lookup_elem", self.fd, self._key(key), value)
        except FileNotFoundError:
            return None
        return value.raw

    def lookup_per_cpu(self, key: bytes) -> list[bytes]:
        """One value for each possible CPU of a per-CPU map; [] if absent."""
        value, size = self.lookup(key) or b"", self.value_size
        return [value[at : at + size] for at in range(0, len(value), _round_up_8(size))]

    def delete(self, key: bytes) -> bool:
        """False if it was absent."""
        try:
            self._object.lib.call("bpf_map_delete_elem", self.fd, self._key(key))
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys, in no order. While others delete, one may come twice; never more than `max_entries` in all."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        for _ in range(self.max_entries):
            try:
                self._object.lib.call("bpf_map_get_next_key", self.fd, key, following)
            except FileNotFoundError:
                return
            key = following.raw
            yield key


def _round_up_8(size: int) -> int:
    return (size + 7) & ~7
