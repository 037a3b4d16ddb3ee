"""Inputs made of others by small changes: what tests can do in seconds, and without a fuzzer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

__all__ = ["mutated"]

_TELLING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b"\r", b'"', b"\\", b"\x1b", b" ", b"\xc0\x0c", b"\xff" * 4)


def mutated(seeds: Sequence[bytes], count: int, number: int) -> Iterator[bytes]:
    """The same ones for the same `number`."""
    random = Random(number)  # noqa: S311 - they shall come again
    for _ in range(count):
        data = bytearray(random.choice(seeds))
        for _ in range(1 + random.getrandbits(2)):
            _change(random, data, seeds)
        yield bytes(data)


def _change(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    match random.randrange(7):
        case 0 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 1:
            data[at : at + 1] = random.choice(_TELLING)
        case 2:
            data[at:at] = random.randbytes(random.randrange(1, 9))
        case 3:
            del data[at : at + random.randrange(1, 17)]
        case 4:
            del data[at:]
        case 5:
            other = random.choice(seeds)
            data[at:] = other[random.randrange(len(other) + 1) :]
        case _:
            end = at + random.randrange(1, 65)
            data[at:at] = data[at:end]
