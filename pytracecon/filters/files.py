"""Files that an option names, judged before anything is loaded from them."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable

from pytracecon.filters.values import refusal

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_BTF_MAGIC = 0xEB9F
_BTF_HEADER = 24
_LONGEST_NAMES = 1 << 20


def btf(option: str, value: PathLike | None) -> str | None:
    """The path of a BTF file (raw, or an ELF file with a .BTF section)."""
    if value is None:
        return None
    return _judged(option, value, _is_btf, "holds no BTF; give a file such as /sys/kernel/btf/vmlinux")


def library(option: str, value: PathLike | None) -> str | None:
    """The path of a shared library. Whether it is a libbpf shows when it is loaded."""
    if value is None:
        return None
    return _judged(option, value, _is_elf, "is no shared library; give the path of a libbpf.so.1")


def pinned(option: str, value: PathLike | None) -> str | None:
    """The path of something in a BPF file system. Whether it is a map of the right shape shows when it is opened."""
    if value is None:
        return None
    return _judged(option, value, None, "is no pinned map; give one, such as /sys/fs/bpf/name")


def _judged(option: str, value: PathLike, judge: Callable[[int, int], bool] | None, otherwise: str) -> str:
    path = ""
    try:
        path = os.fsdecode(value)
        # Not opened before it is known to be a file: a FIFO would block, a device may do anything.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (ValueError, TypeError):
        raise refusal(option, value, "is no path") from None
    except OSError as error:
        raise refusal(option, path, f"cannot be opened: {error.strerror}; give a file that can be read") from None
    try:
        right = stat.S_ISREG(os.fstat(handle).st_mode) and (judge is None or _read(handle, judge))
    except OSError as error:
        raise refusal(option, path, f"cannot be read: {error.strerror}; give a file that can be read") from None
    finally:
        os.close(handle)
    if not right:
        raise refusal(option, path, otherwise)
    return path


def _read(handle: int, judge: Callable[[int, int], bool]) -> bool:
    readable = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return judge(readable, os.fstat(readable).st_size)
    finally:
        os.close(readable)


def _is_btf(handle: int, size: int) -> bool:
    if _is_raw_btf(handle, 0, size):
        return True
    section = _elf_section(handle, size, b".BTF")
    return section is not None and _is_raw_btf(handle, *section)


def _is_raw_btf(handle: int, start: int, size: int) -> bool:
    header = os.pread(handle, _BTF_HEADER, start)
    if len(header) < _BTF_HEADER:
        return False
    fields: tuple[int, ...] = struct.unpack("=HBBIIIII", header)
    magic, _version, _flags, length, types, types_size, strings, strings_size = fields
    return magic == _BTF_MAGIC and length + max(types + types_size, strings + strings_size) <= size


def _is_elf(handle: int, _size: int) -> bool:
    return os.pread(handle, 4, 0) == b"\x7fELF"


def _elf_section(handle: int, size: int, name: bytes) -> tuple[int, int] | None:
    """Offset and size of a section of a 64-bit ELF file of this byte order, if it is whole."""
    header = os.pread(handle, 64, 0)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return None
    (table,) = struct.unpack_from("=Q", header, 0x28)
    entry_size, count, names_index = struct.unpack_from("=HHH", header, 0x3A)
    if entry_size < 40 or names_index >= count or table + count * entry_size > size:
        return None
    sections = [struct.unpack("=I4xQQQQ", os.pread(handle, 40, table + index * entry_size)) for index in range(count)]
    names_at, names_size = sections[names_index][3:]
    if names_at + names_size > size:
        return None
    names = os.pread(handle, min(names_size, _LONGEST_NAMES), names_at)
    for name_at, _flags, _address, at, length in sections:
        if names[name_at : name_at + len(name) + 1] == name + b"\0" and at + length <= size:
            return at, length
    return None
