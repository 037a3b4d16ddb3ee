"""`Source`: what a target is to do, read out of the fuzzer's bytes; when they are used up, all is zero."""

from __future__ import annotations

__all__ = ["Source", "pieces"]


class Source:
    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes, or as many as are left."""
        begin = self._at
        self._at += size
        return self._data[begin : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def piece(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        return self.take(len(self._data))


def pieces(*parts: bytes) -> bytes:
    """What `piece` reads, for seeds."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
