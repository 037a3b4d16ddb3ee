"""Linux capabilities of the thread that asks: which it has, and having fewer of them, for a while or for good.

A capability is known by its name, as `capabilities(7)` has it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["NUMBERS", "Held", "effective", "forget", "held", "held_by", "now", "only"]

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_NAMES.split())}
"""As linux/capability.h has them."""
_OF_BITS = {number: name for name, number in NUMBERS.items()}

_VERSION_3 = 0x20080522
_PR_SET_SECUREBITS, _PR_CAPBSET_DROP = 28, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 47, 4
# NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, and each locked: no user is special any more.
_SECUREBITS = 0b1110_1111

_libc = ctypes.CDLL(None, use_errno=True)


class Held(NamedTuple):
    """The sets of a thread, as bits: bit 21 is capability 21."""

    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privs: bool

    def names(self) -> frozenset[str]:
        """Of those that it may have in effect; of one that is unknown, its number."""
        return _names(self.permitted)


def held() -> Held:
    """By this thread."""
    return held_by("thread-self")


def held_by(pid: int | str) -> Held:
    """By a process, as its number or name in /proc."""
    # Lines end in newlines only: whatever else ends one for Python may be in a process's name.
    lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")
    status = {key: value for key, _, value in (line.partition(b":\t") for line in lines)}
    effective, permitted, inheritable, bounding, ambient = (
        int(status[b"Cap%b" % name], 16) for name in (b"Eff", b"Prm", b"Inh", b"Bnd", b"Amb")
    )
    return Held(effective, permitted, inheritable, bounding, ambient, status[b"NoNewPrivs"] == b"1")


def now() -> frozenset[str]:
    """What this thread may have in effect."""
    return _names(_sets()[1])


def effective(names: Collection[str], *, permitted: Collection[str] | None = None) -> None:
    """Have these in effect, of those that are permitted; no others stay permitted than `permitted`, if that is given.

    OSError if one is not permitted. With `permitted`, none stays inheritable.
    """
    _, may, inheritable = _sets() if permitted is None else (0, _bits(permitted), 0)
    wanted = _bits(names)
    header, sets = _header(), (ctypes.c_uint32 * 6)()
    for word in range(2):
        for place, bits in enumerate((wanted, may, inheritable)):
            sets[3 * word + place] = bits >> 32 * word & 0xFFFF_FFFF
    _checked(_libc.capset(header, sets), "capset")


@contextmanager
def only(names: Collection[str]) -> Iterator[None]:
    """For a while, no others are in effect in this thread, and of these those that are permitted.

    A thread that is started meanwhile keeps to it.
    """
    before, may, _ = _sets()
    have = _names(may)
    effective([name for name in names if name in have])
    try:
        yield
    finally:
        effective([name for name, bit in NUMBERS.items() if before >> bit & 1])


def forget(kept: Collection[str]) -> bool:
    """For good: this thread has these, in effect, and can get no other, not even by executing a program. OSError.

    Without CAP_SETPCAP the bounding set stays as it is, which no_new_privs makes up for: False then.
    """
    able = "CAP_SETPCAP" in now()
    if able:
        effective(now())
        for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            _prctl(_PR_CAPBSET_DROP, number)
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    effective(kept, permitted=kept)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return able


def _header() -> Any:
    return (ctypes.c_uint32 * 2)(_VERSION_3, 0)


def _sets() -> tuple[int, int, int]:
    """Of this thread: effective, permitted and inheritable. /proc takes thirty times as long to tell."""
    words = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(_header(), words), "capget")
    effective, permitted, inheritable = (words[place] | words[place + 3] << 32 for place in range(3))
    return effective, permitted, inheritable


def _names(bits: int) -> frozenset[str]:
    return frozenset(_OF_BITS.get(bit, str(bit)) for bit in range(64) if bits >> bit & 1)


def _bits(names: Collection[str]) -> int:
    return sum(1 << NUMBERS[name] for name in set(names))


def _prctl(option: int, value: int) -> None:
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _checked(_libc.prctl(option, *arguments), "prctl")


def _checked(result: int, doing: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), doing)
