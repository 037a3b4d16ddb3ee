"""Names in a DNS message: found by their labels and pointers, compared as bytes, shown as text.

Here a name is its labels on the wire without the root's zero, lower-cased, so that equal names are equal bytes.
Whatever is read is hostile: a pointer leads backwards only, no name is longer than the 255 bytes of RFC 1035.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["Malformed", "behind", "read", "text"]

LONGEST = 254
"""RFC 1035's 255 bytes without the root's zero."""
MOST_POINTERS = 127
"""One before each of its labels: no pointer needs to lead to a pointer."""
_HEADER = 12
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_"


class Malformed(ValueError):
    """These bytes are no DNS message."""


def read(wire: bytes, at: int, known: dict[int, bytes]) -> tuple[bytes, int]:
    """The name that stands at `at`, and where it ends. `known` keeps what pointers of this message have led to.

    Raises IndexError where the message ends first.
    """
    size = wire[at]
    if size >= 192:
        name = known.get((size & 63) << 8 | wire[at + 1])
        if name is not None:
            return name, at + 2
    first = start = at
    end = length = 0
    runs: list[bytes] = []
    met: list[tuple[int, int]] = []
    while True:
        size = wire[at]
        if size == 0:
            break
        if size < 64:
            at += size + 1
            if length + at - start > LONGEST:
                raise Malformed(f"the name at {first} is longer than 255 bytes")
            continue
        if size < 192:
            raise Malformed(f"the name at {first} has a label of an unknown kind")
        target = (size & 63) << 8 | wire[at + 1]
        end = end or at + 2
        runs.append(wire[start:at])
        length += at - start
        name = known.get(target)
        if name is not None:
            if length + len(name) > LONGEST:
                raise Malformed(f"the name at {first} is longer than 255 bytes")
            runs.append(name)
            start = at
            break
        if not _HEADER <= target < start or len(met) == MOST_POINTERS:
            raise Malformed(f"the name at {first} points to nothing before it")
        met.append((target, length))
        at = start = target
    if runs:
        runs.append(wire[start:at])
        whole = b"".join(runs).lower()
    else:
        whole = wire[start:at].lower()
        known[first] = whole
        end = at + 1
    for target, before in met:
        known[target] = whole[before:]
    return whole, end or at + 1


def behind(wire: bytes, at: int) -> int:
    """Where the name at `at` ends, whatever it is. Raises IndexError where the message ends first."""
    while size := wire[at]:
        if size >= 192:
            return at + 2
        if size > 63:
            raise Malformed(f"a label of an unknown kind at {at}")
        at += size + 1
    return at + 1


@lru_cache(maxsize=2048)
def text(name: bytes) -> str:
    """As people write it, without the dot at the end; the root is a dot. No byte but printable ASCII gets through."""
    if not name:
        return "."
    labels = []
    at = 0
    while at < len(name):
        begin = at + 1
        at = begin + name[at]
        labels.append(name[begin:at])
    if not b"".join(labels).translate(None, _PLAIN):
        return b".".join(labels).decode("ascii")
    shown = _shown()
    return ".".join(["".join([shown[byte] for byte in label]) for label in labels])


@lru_cache(maxsize=1)
def _shown() -> tuple[str, ...]:
    """Each byte as dnspython shows it: itself, behind a backslash, or as three digits behind one."""
    from dns.name import Name  # noqa: PLC0415 - 24 ms, and most hosts never ask for such a name

    return tuple(str(Name((bytes([byte]), b"")).to_text(omit_final_dot=True)) for byte in range(256))
