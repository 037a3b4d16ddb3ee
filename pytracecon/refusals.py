"""What a failed load or attach means: a leaf of `pytracecon.errors`, from its errno and what libbpf said of it."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon._libbpf_btf import KERNEL_BTF, NO_KERNEL_BTF
from pytracecon.errors import (
    LockedDown,
    MissingBTF,
    MissingPrivilege,
    PytraceconError,
    UnsupportedKernel,
    VerifierRejected,
    limit_reached,
)
from pytracecon.logs import WARNING
from pytracecon.privileges import in_user_namespace, lockdown, memlock_is_short, missing_capabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytracecon._libbpf import Libbpf, Message

_LOG_LINES = 4  # of a verifier log in an error's text
_HOW_TO_GET_CAPABILITIES = "run as root (sudo), or grant it (setcap, AmbientCapabilities=)"
_HOW_TO_UNLOCK = "boot with lockdown=integrity or none"
_BTF_SIGNS = ("failed to find valid kernel BTF", "Error loading vmlinux BTF", "failed to get target BTF")


def explain(
    lib: Libbpf,
    error: OSError,
    doing: str,
    *,
    program: str = "",
    section: str = "",
    said: Sequence[Message] = (),
) -> PytraceconError:
    """The leaf of `errors` that a failed load or attach means; `said` is what libbpf said meanwhile."""
    code = error.errno or 0
    denied = code in (errno.EPERM, errno.EACCES)
    locked = lockdown()
    log = _verifier_log(said)
    # Linux ff40e51043af (v5.13) takes the helpers away under lockdown; before that they fail when they run.
    reads_forbidden = re.search(r"(unknown func|cannot use helper) bpf_probe_read", log) is not None
    attaching = doing.startswith("attaching")
    found: PytraceconError
    if limit := limit_reached(error, doing):
        found = limit
    elif denied and (missing := missing_capabilities(section, attaching=attaching)):
        found = MissingPrivilege(f"{doing} needs {' and '.join(missing)}: {_HOW_TO_GET_CAPABILITIES}")
    elif denied and in_user_namespace():
        found = MissingPrivilege(f"{doing} is not allowed in a user namespace: run as root outside of the container")
    elif locked == "confidentiality" and (denied or reads_forbidden):
        found = LockedDown(f"{doing} is forbidden, the kernel is locked down (confidentiality): {_HOW_TO_UNLOCK}")
    elif locked is None and reads_forbidden:
        found = LockedDown(
            f"{doing} is forbidden, the kernel lets no program read its memory, which means lockdown "
            f"(securityfs is not mounted to tell): {_HOW_TO_UNLOCK}"
        )
    elif log:
        found = VerifierRejected(f"{doing} failed, the kernel's verifier refused: {_last(log)}", log=log)
    elif any(sign in message.text for sign in _BTF_SIGNS for message in said) and not Path(KERNEL_BTF).exists():
        found = MissingBTF(NO_KERNEL_BTF)
    elif code == errno.EPERM and memlock_is_short(lib):
        found = MissingPrivilege(
            f"{doing} hit the limit of locked memory and needs CAP_SYS_RESOURCE to raise it: "
            f"{_HOW_TO_GET_CAPABILITIES}, or `ulimit -l unlimited` first"
        )
    else:
        text = f"{doing} failed: {_reason(said, program) or error.strerror}"
        if code == errno.EPERM and locked is None:
            text += "; whether the kernel is locked down is unknown (securityfs is not mounted)"
        found = UnsupportedKernel(text)
    found.program = program
    return caused_by(found, error)


def caused_by(found: PytraceconError, error: OSError) -> PytraceconError:
    if isinstance(found, OSError):
        found.errno = error.errno
    return found


def failed_program(said: Sequence[Message]) -> str:
    """The program that libbpf gave up at: it names it in its last warnings."""
    for message in reversed(said):
        if message.level == WARNING and (match := re.match(r"prog '([^']+)': ", message.text)):
            return match[1]
    return ""


def _verifier_log(said: Sequence[Message]) -> str:
    """What the verifier printed; "" if that is nothing but its statistics."""
    for message in reversed(said):
        match = re.search(r"-- BEGIN PROG LOAD LOG --\n(.*)-- END PROG LOAD LOG --", message.text, re.DOTALL)
        if match:
            return match[1] if _complaints(match[1]) else ""
    return ""


def _complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.strip(" ;") and not line.startswith("processed ")]


def _last(log: str) -> str:
    lines = _complaints(log)
    omitted = len(lines) - _LOG_LINES
    first = [f"({omitted} line{'s' * (omitted > 1)} omitted)"] if omitted > 0 else []
    return " | ".join(first + lines[-_LOG_LINES:])


def _reason(said: Sequence[Message], program: str) -> str:
    """The first warning of this program, or of anything: the later ones say what failed because of it."""
    warnings = [" ".join(each.text.split()) for each in said if each.level == WARNING]
    of_it = [text for text in warnings if f"prog '{program}'" in text]
    return next(iter(of_it + warnings), "")
