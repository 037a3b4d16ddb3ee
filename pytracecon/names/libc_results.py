"""What a libc's resolver returned, by name, and what of its input was a name at all."""

from __future__ import annotations

import socket
from string import hexdigits

from pytracecon.text import decode

__all__ = ["code_name", "host_of", "is_numeric", "text_of"]

# netdb.h of glibc 2.36 and of musl 1.2.3 give the same numbers.
_GETADDRINFO = {
    -1: "EAI_BADFLAGS",
    -2: "EAI_NONAME",
    -3: "EAI_AGAIN",
    -4: "EAI_FAIL",
    -5: "EAI_NODATA",
    -6: "EAI_FAMILY",
    -7: "EAI_SOCKTYPE",
    -8: "EAI_SERVICE",
    -9: "EAI_ADDRFAMILY",
    -10: "EAI_MEMORY",
    -11: "EAI_SYSTEM",
    -12: "EAI_OVERFLOW",
    -100: "EAI_INPROGRESS",
    -101: "EAI_CANCELED",
    -102: "EAI_NOTCANCELED",
    -103: "EAI_ALLDONE",
    -104: "EAI_INTR",
    -105: "EAI_IDN_ENCODE",
}
_GETHOSTBYNAME = {
    -1: "NETDB_INTERNAL",
    1: "HOST_NOT_FOUND",
    2: "TRY_AGAIN",
    3: "NO_RECOVERY",
    4: "NO_DATA",
}
# What the kernel side tells where h_errno cannot be read: H_ERRNO_UNKNOWN.
_UNREAD = 0x7FFF
_NUMBER = frozenset(hexdigits + "xX.")


def code_name(function: str, code: int) -> str:
    """The result of a lookup: `ok`, or the constant of netdb.h. `failed`: why cannot be told.

    A number that netdb.h does not have stays one: `EAI_-77`, `H_ERRNO_9`.
    """
    if code == 0:
        return "ok"
    if function == "getaddrinfo":
        return _GETADDRINFO.get(code) or f"EAI_{code}"
    return "failed" if code == _UNREAD else _GETHOSTBYNAME.get(code) or f"H_ERRNO_{code}"


def is_numeric(name: str) -> bool:
    """Whether a libc takes `name` for an address, without a lookup: `10.0.0.1`, `127.1`, `0x7f000001`, `fe80::1%eth0`.

    Any scope will do behind an IPv6 address: which ones are right depends on the interfaces where it was asked.
    """
    if ":" in name:
        return _reads(name.partition("%")[0])
    # inet_aton alone would also take what follows behind a blank.
    return _NUMBER.issuperset(name) and _aton(name)


def text_of(name: bytes) -> str:
    r"""A name as it was asked for. What is not UTF-8 becomes `\xNN`, visibly."""
    return decode(name)


def host_of(name: str) -> str | None:
    """What an end may be called if `name` was asked for: without its trailing dot. Neither an address nor the root."""
    host = name.removesuffix(".")
    return None if not host or host == "." or is_numeric(host) else host


def _reads(address: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, address)
    except (OSError, ValueError):  # ValueError: a NUL in it, or what cannot be encoded
        return False
    return True


def _aton(address: str) -> bool:
    try:
        socket.inet_aton(address)
    except OSError:
        return False
    return True
