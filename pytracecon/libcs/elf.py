"""An ELF file's dynamic symbols, found as a loader finds them: through the program headers and the hash table.

Any file may be given, and every number in it may lie. It is read with pread, never mapped (a file that shrinks would
kill whoever maps it), at most MOST_READS times, at most LARGEST_READ bytes each. Sections are not looked at: a stripped
library has none, and no loader trusts them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

__all__ = ["LARGEST_READ", "MOST_READS", "Elf", "NotALibc"]

MOST_READS = 2048
LARGEST_READ = 16384

_MACHINES = {"x86_64": 62, "aarch64": 183}
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_EXECUTABLE, _SHARED = 2, 3
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _SYMBOL_SIZE, _GNU_HASH = 4, 5, 6, 10, 11, 0x6FFFFEF5
_FUNCTION, _GLOBAL, _WEAK, _FIRST_RESERVED_SECTION = 2, 1, 2, 0xFF00

_HEADER = struct.Struct("<7s9xHHIQQQIHHH6x")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<QQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_WORD = struct.Struct("<I")
_MOST_SEGMENTS = LARGEST_READ // _SEGMENT.size
_LARGEST_OFFSET = (1 << 63) - 1


class NotALibc(ValueError):
    """Not a file in which lookups happen, and why."""


class _Segment(NamedTuple):
    address: int
    size: int
    offset: int
    executable: bool


class Elf:
    """A program or library for this machine. The descriptor stays the caller's. An error of reading is an OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reads = 0
        self._dynamic: tuple[int, int] | None = None
        self._interpreter: tuple[int, int] | None = None
        self._segments: list[_Segment] = []
        self._tags: dict[int, int] | None = None
        self._read_headers()

    def _read_headers(self) -> None:
        header = os.pread(self._descriptor, _HEADER.size, 0)
        if header[: len(_IDENT)] != _IDENT or len(header) < _HEADER.size:
            raise NotALibc("it is no 64-bit little-endian ELF file")
        _, kind, machine, _, _, table, _, _, _, size, count = _HEADER.unpack(header)
        if machine != _MACHINES.get(os.uname().machine):
            raise NotALibc(f"it is for another machine (ELF machine {machine})")
        if kind not in (_EXECUTABLE, _SHARED):
            raise NotALibc(f"it is neither a program nor a library (ELF type {kind})")
        if size != _SEGMENT.size or not 0 < count <= _MOST_SEGMENTS:
            raise NotALibc(f"its program headers cannot be: {count} of {size} bytes")
        self._read_segments(self._read(table, size * count))

    def _read_segments(self, table: bytes) -> None:
        end = 0
        for kind, flags, offset, address, _, size, _, _ in _SEGMENT.iter_unpack(table):
            if kind == _LOAD:
                if address < end:
                    raise NotALibc("its segments overlap or are not in order")
                end = address + size
                self._segments.append(_Segment(address, size, offset, bool(flags & 1)))
            elif kind == _DYNAMIC:
                self._dynamic = offset, size
            elif kind == _INTERPRETER:
                self._interpreter = offset, size

    def interpreter(self) -> bytes | None:
        """The path of the loader that a program asks for; None for a static one."""
        if self._interpreter is None:
            return None
        path, end, rest = self._read(*self._interpreter).partition(b"\0")
        if not path.startswith(b"/") or not end or rest:
            raise NotALibc("the path of its interpreter cannot be")
        return path

    def functions(self, name: str) -> tuple[int, ...]:
        """Where in the file the functions of that name begin that others may call; several if it has versions.

        A symbol of type IFUNC is none: its address is that of a resolver, which runs once.
        """
        found: set[int] = set()
        wanted = name.encode() + b"\0"
        for index in self._symbols_hashed_as(wanted[:-1]):
            text, info, _, section, value, _ = self._unpack(_SYMBOL, self._tag(_SYMBOLS) + index * _SYMBOL.size)
            if info & 15 != _FUNCTION or info >> 4 not in (_GLOBAL, _WEAK) or not 0 < section < _FIRST_RESERVED_SECTION:
                continue
            if text + len(wanted) > self._tag(_STRINGS_SIZE):
                raise NotALibc("the name of a symbol lies outside its strings")
            if self._read(self._offset(self._tag(_STRINGS) + text, len(wanted)), len(wanted)) == wanted:
                offset = self._offset(value, 1, executable=True)
                self._read(offset, 1)  # it must be there
                found.add(offset)
        return tuple(sorted(found))

    def _symbols_hashed_as(self, name: bytes) -> Iterator[int]:
        if _GNU_HASH in self._entries():
            yield from self._by_gnu_hash(self._tag(_GNU_HASH), name)
        else:
            yield from self._by_hash(self._tag(_HASH), name)

    def _by_gnu_hash(self, table: int, name: bytes) -> Iterator[int]:
        buckets, first, blooms, _ = self._unpack(_FOUR_WORDS, table)
        if not buckets:
            return
        hashed, _ = _hashes(name)
        table += _FOUR_WORDS.size + 8 * blooms
        (index,) = self._unpack(_WORD, table + 4 * (hashed % buckets))
        chains = table + 4 * buckets
        while index >= first and index:
            (link,) = self._unpack(_WORD, chains + 4 * (index - first))
            if link >> 1 == hashed >> 1:
                yield index
            index = 0 if link & 1 else index + 1

    def _by_hash(self, table: int, name: bytes) -> Iterator[int]:
        (buckets,) = self._unpack(_WORD, table)
        if not buckets:
            return
        _, hashed = _hashes(name)
        table += 8
        (index,) = self._unpack(_WORD, table + 4 * (hashed % buckets))
        while index:
            yield index
            (index,) = self._unpack(_WORD, table + 4 * (buckets + index))

    def _entries(self) -> dict[int, int]:
        if self._tags is None:
            if self._dynamic is None:
                raise NotALibc("it is linked statically")
            offset, size = self._dynamic
            self._tags = {}
            for tag, value in _ENTRY.iter_unpack(self._read(offset, size - size % _ENTRY.size)):
                if tag == 0:
                    break
                self._tags[tag] = value
            if self._tags.get(_SYMBOL_SIZE, _SYMBOL.size) != _SYMBOL.size:
                raise NotALibc(f"its symbols cannot be: of {self._tags[_SYMBOL_SIZE]} bytes")
        return self._tags

    def _tag(self, tag: int) -> int:
        value = self._entries().get(tag)
        if value is None:
            raise NotALibc(f"its dynamic section lacks the entry {tag:#x}")
        return value

    def _unpack(self, layout: struct.Struct, address: int) -> tuple[int, ...]:
        return layout.unpack(self._read(self._offset(address, layout.size), layout.size))

    def _offset(self, address: int, size: int, *, executable: bool = False) -> int:
        for segment in self._segments:
            if segment.address <= address and address + size <= segment.address + segment.size:
                if executable and not segment.executable:
                    raise NotALibc("a function lies in a segment that is not executable")
                return address - segment.address + segment.offset
        raise NotALibc(f"it refers to {address:#x}, which is in none of its segments")

    def _read(self, offset: int, size: int) -> bytes:
        self._reads += 1
        if self._reads > MOST_READS or size > LARGEST_READ:
            raise NotALibc("its tables are too long, or go round")
        if offset + size > _LARGEST_OFFSET:
            raise NotALibc("it refers to what no file can hold")
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise NotALibc("it ends too early")
        return data


_FOUR_WORDS = struct.Struct("<4I")


@lru_cache(maxsize=32)
def _hashes(name: bytes) -> tuple[int, int]:
    """The name's hash in DT_GNU_HASH, and that in DT_HASH."""
    gnu, old = 5381, 0
    for byte in name:
        gnu = (gnu * 33 + byte) & 0xFFFFFFFF
        old = (old << 4) + byte
        old = (old ^ (old & 0xF0000000) >> 24) & 0x0FFFFFFF
    return gnu, old
