"""How a connection ended, and why, in words: what its events say, and no more."""

from __future__ import annotations

from pytracecon.events import Accept, Close, Connect, Established, Existing, Failed, Reset, Retransmit, State
from pytracecon.lives import Life
from pytracecon.views.wording import UNKNOWN, duration, size

__all__ = ["outcome", "why"]

_REASONS = {"timeout": "timed out", "no_address": "no address", "denied": "not allowed"}
_ENDED = {
    "local_close": "closed by {local}",
    "remote_close": "closed by {remote}",
    "local_reset": "reset by {local}",
    "remote_reset": "reset by {remote}",
    "timeout": "timed out",
}
_ENDS = {"out": ("this side (the client)", "the server"), "in": ("this side (the server)", "the client")}
_UNDECIDED = ("this side", "the other side")

_WHY_FAILED = {
    "reset": "the other side reset it before there was a connection",
    "unreachable": "no route leads there, or a router or neighbour said so",
    "denied": "this host did not let it: a firewall or another rule of its own",
    "no_address": "no local address and port were free for it",
    "cancelled": "its process gave up before there was an answer",
}


def outcome(life: Life) -> str:
    """`closed by the server after 7.10 ms`."""
    end = life.end
    if isinstance(end, Failed):
        said = "failed" if end.reason is None else _REASONS.get(end.reason, end.reason)
        return said if end.latency_ns is None else f"{said} after {duration(end.latency_ns)}"
    if end is None:
        return f"not over, {_state(life)}"
    if isinstance(end, State):
        return "ended in the handshake"
    said = "over" if end.ended is None else _by(life, _ENDED.get(end.ended, end.ended))
    return said if end.duration_ns is None else f"{said} after {duration(end.duration_ns)}"


def why(life: Life) -> str:
    end = life.end
    if isinstance(end, Failed):
        return f"{_error(end)}: {_why_failed(life, end)}"
    if end is None:
        return f"not among these events; the last state is {_state(life)}"
    if isinstance(end, State):
        return "the handshake was not completed: it was reset, or there was no room for it"
    match end.ended:
        case "local_close":
            return _by(life, "{local} closed it first") + _answer(life)
        case "remote_close":
            return _by(life, "{remote} closed it first") + _answer(life)
        case "local_reset":
            return _by(life, "{local} cut it with a reset") + _reset_in(life, sent=True) + _unacknowledged(end)
        case "remote_reset":
            return _by(life, "{remote} cut it with a reset") + _reset_in(life, sent=False) + _unacknowledged(end)
        case "timeout":
            return _by(life, "{remote} did not answer any more") + _tried(life) + _unacknowledged(end)
    return "how is not known" if end.ended is None else end.ended


def _why_failed(life: Life, end: Failed) -> str:
    if end.reason == "refused":
        reset = any(event.sent is False for event in life.all(Reset))
        by = "a reset came in answer to the SYN" if reset else "the answer was a refusal"
        return f"{by}, as where nothing listens on port {life.last('remote_port') or UNKNOWN}"
    if end.reason == "timeout":
        return f"no answer came to the SYN{_tried(life)}"
    said = "there was no connection" if end.reason is None else _WHY_FAILED.get(end.reason, end.reason)
    return said + (_tried(life) if end.reason == "cancelled" else "")


def _error(end: Failed) -> str:
    reason = "failed" if end.reason is None else _REASONS.get(end.reason, end.reason)
    return reason if end.error is None else f"{reason} ({end.error})"


def _tried(life: Life) -> str:
    """How often something was sent again, as the end counts it."""
    if isinstance(life.end, Failed):
        count = life.end.syn_retransmits
        return f"; the SYN was sent again {'once' if count == 1 else f'{count} times'}" if count else ""
    count = life.end.retransmits if isinstance(life.end, Close) else None
    return f"; {count} segment{' was' if count == 1 else 's were'} sent again" if count else ""


def _answer(life: Life) -> str:
    """How long this side let the other one wait. Of the other one FIN_WAIT2 does not tell it: a socket that its process
    has closed leaves that state at once.
    """
    for state in life.all(State):
        if (state.old, state.new) == ("CLOSE_WAIT", "LAST_ACK") and state.in_old_ns is not None:
            return _by(life, "; {local} followed after ") + duration(state.in_old_ns)
    return ""


def _reset_in(life: Life, *, sent: bool) -> str:
    states = [event.state for event in life.all(Reset) if event.sent is sent and event.state is not None]
    return f" in {states[-1]}" if states else ""


def _unacknowledged(end: Close) -> str:
    if end.tx_bytes is None or end.tx_acked is None or end.tx_acked >= end.tx_bytes:
        return ""
    return f"; {size(end.tx_bytes - end.tx_acked)} sent were not acknowledged"


def _state(life: Life) -> str:
    """The last one that is told, or what is certain."""
    for event in reversed(life.events):
        state = event.new if isinstance(event, State) else None
        if isinstance(event, (Existing, Retransmit)):
            state = event.state
        if state is not None:
            return state
    if any(isinstance(event, (Established, Accept)) for event in life.events):
        return "ESTABLISHED"
    return "SYN_SENT" if life.the(Connect) is not None else UNKNOWN


def _by(life: Life, text: str) -> str:
    local, remote = _ENDS.get(life.last("direction"), _UNDECIDED)
    return text.format(local=local, remote=remote)
