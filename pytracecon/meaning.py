"""`meaning`: one word of what an event says about a connection, as people would."""

from __future__ import annotations

import errno

__all__ = ["of_retransmit", "of_state"]

_REFUSALS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
_CLIENT, _SERVER = "closed_by_client", "closed_by_server"
_LOCAL = {"out": _CLIENT, "in": _SERVER}
_REMOTE = {"out": _SERVER, "in": _CLIENT}
_OPEN = frozenset({("CLOSE", "SYN_SENT"), ("LISTEN", "SYN_RECV")})


def of_state(direction: str, old: str | None, new: str | None, error: int) -> str | None:
    """Of a change of state, with what the socket had reported by then (errno, or 0). None where nothing is decided."""
    if (old, new) in _OPEN:
        return "open"
    if old == "SYN_SENT" and new == "CLOSE":
        return "refused" if error in _REFUSALS else "gave_up"
    if old != "ESTABLISHED":
        return None
    if new == "FIN_WAIT1":
        return _LOCAL.get(direction)
    if new == "CLOSE_WAIT":
        return _REMOTE.get(direction)
    if new == "CLOSE":
        if error in _REFUSALS:
            return _REMOTE.get(direction)
        return _LOCAL.get(direction) if error in (0, errno.ECONNABORTED) else None
    return None


def of_retransmit(segment: str | None) -> str | None:
    return "slow_establishing" if segment == "syn" else None
