"""`drop_privileges`: this process gives up, for good, what its tracers do not use any more; and another user, if asked.

    with Tracer() as tracer:
        dropped = pytracecon.drop_privileges(tracer, user="nobody")
        for event in tracer:
            ...

No library does that by itself: it is about the whole process. A set of capabilities belongs to a thread, so it refuses
where there are others than this one: threads that are started afterwards inherit what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import capabilities
from pytracecon.errors import InvalidValue, MissingPrivilege, PrivilegesKept, PytraceconError, ThreadsRunning
from pytracecon.text import one_line

if TYPE_CHECKING:
    from pwd import struct_passwd

    from pytracecon.tracer import Tracer
    from pytracecon.upkeep import Upkeep

__all__ = ["KEEP", "Dropped", "become", "drop_privileges", "named_user"]

KEEP = ("needs", "none")
"""What stays: what the needs of the tracers use, or as good as nothing."""

_OURS = "pytracecon: imports"
_ENDS_WITHIN = 30.0  # seconds, for a thread of ours that imports: an emulated machine takes its time
_GONE_WITHIN = 2.0  # seconds, for the kernel to let go of it
_READS_ALL = "CAP_DAC_READ_SEARCH"
_PROG_LOAD, _KPROBE = 5, 2  # BPF_PROG_LOAD, BPF_PROG_TYPE_KPROBE of linux/bpf.h
_CLONE_NEWUTS = 0x04000000
_PR_SET_KEEPCAPS = 8
_SOMEBODY = 65_533
_BECOMING = "becoming another user"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is left: capabilities, with the needs that use them; and what is lost `without` some, a line for each."""

    user: str
    kept: dict[str, list[str]]
    lost: list[str] = field(default_factory=list)
    without: frozenset[str] = frozenset()


def drop_privileges(
    *tracers: Tracer, user: str | None = None, keep: str = "needs", also: Collection[Upkeep] = ()
) -> Dropped:
    """Give up every capability of this process that `tracers` do not use from now on, and make sure that it is gone.

    `user`: become this one (a name or number), with its groups. `keep="none"` keeps none for their needs either, which
    loses what `Dropped.lost` says. `also` is what else has to stay. Before events are read, and before there are other
    threads. Whoever wants snapshots loads what they take before, by `tracer.prepare_snapshots()`.

    InvalidValue if there is no such user; MissingPrivilege if it may not be; PrivilegesKept if anything stayed, after
    which a process should end. ThreadsRunning if there are other threads.
    """
    if keep not in KEEP:
        raise InvalidValue(f"keep: {keep!r} is none of {', '.join(KEEP)}")
    found = None if user is None else named_user("user", user)
    _be_alone()
    wanted = [*also, *(each for tracer in tracers for each in tracer.upkeep)]
    have = capabilities.now()
    stays = [each for each in wanted if each.vital or keep == "needs"]
    names = {name for each in stays for name in each.capabilities if name in have}
    if found is not None and found.pw_uid != 0:
        names.discard("CAP_DAC_OVERRIDE")  # with it, that user would be root again
    try:
        if found is not None and found.pw_uid != os.geteuid():
            become(found.pw_uid, found.pw_gid, os.getgrouplist(found.pw_name, found.pw_gid))
        if closed := _closed_to(names):
            _refuse_imports(closed, keep, have)
            names.add(_READS_ALL)
            stays.append(_importing(closed))
        bounded = capabilities.forget(names)
    except PytraceconError:
        raise
    except OSError as error:
        raise PrivilegesKept(f"privileges cannot be dropped: {error.filename}: {error.strerror}") from error
    _verify(names, bounded=bounded)
    uses = {name: [each.need for each in stays if name in each.capabilities] for name in sorted(names)}
    return Dropped(
        found.pw_name if found is not None else ("root", str(os.geteuid()))[os.geteuid() > 0],
        uses,
        list(dict.fromkeys(each.costs for each in wanted if not names.issuperset(each.capabilities))),
        frozenset(name for each in wanted for name in each.capabilities) - names,
    )


def named_user(option: str, wanted: str) -> struct_passwd:
    """By name or number. InvalidValue if there is none; MissingPrivilege if this process may not become it."""
    import pwd  # noqa: PLC0415 - for those who leave root

    try:
        found = pwd.getpwuid(int(wanted)) if wanted.isascii() and wanted.isdigit() else pwd.getpwnam(wanted)
    except (KeyError, OverflowError, ValueError):
        said = f"{option}: {wanted or 'an empty value'} is no user here; give a name or number of /etc/passwd"
        raise InvalidValue(one_line(said)) from None
    lacks = {"CAP_SETUID", "CAP_SETGID"} - capabilities.now()
    if found.pw_uid != os.geteuid() and lacks:
        raise MissingPrivilege(
            f"{option}: to become {found.pw_name} needs {' and '.join(sorted(lacks))}: run as root (sudo)"
        )
    return found


def _be_alone() -> None:
    """ThreadsRunning if there are others; those of ours that only start things are waited for."""
    for each in threading.enumerate():
        if each.name == _OURS:
            each.join(_ENDS_WITHIN)
    # A thread that was joined is in the kernel for a moment yet, and nothing tells when it is gone.
    deadline = time.monotonic() + _GONE_WITHIN
    while (others := len(os.listdir("/proc/self/task")) - 1) and threading.active_count() == 1:
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    if others:
        names = ", ".join(each.name for each in threading.enumerate() if each is not threading.current_thread())
        raise ThreadsRunning(
            f"{others} other threads would keep their privileges ({names or 'none of Python'}): drop them before "
            "threads are started and before events are read"
        )


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Another user, with the capabilities that this thread has. PrivilegesKept if that fails."""
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _prctl(_PR_SET_KEEPCAPS, 0)
        capabilities.effective(capabilities.now())
    except OSError as error:
        why = f"{error.strerror}: run outside of a user namespace"
        raise PrivilegesKept(f"becoming user {uid} failed: {why}") from None


def _closed_to(names: Collection[str]) -> str | None:
    """A folder that modules are imported from, sooner or later, and that cannot be read with these alone."""
    if _READS_ALL in names:
        return None
    with capabilities.only(names):
        for folder in dict.fromkeys([str(Path(__file__).parent), *sys.path]):
            try:
                next(os.scandir(folder), None)
            except PermissionError:
                return folder
            except OSError:  # there is none; nothing is imported from there
                continue
    return None


def _refuse_imports(closed: str, keep: str, have: Collection[str]) -> None:
    """MissingPrivilege where they may not be kept or are not there."""
    if keep == "none" or _READS_ALL not in have:
        who = f"user {os.geteuid()}"
        raise MissingPrivilege(
            one_line(
                f"{closed} cannot be read by {who} without {_READS_ALL}, and modules are imported from it when they "
                "are needed: install it where everybody may read"
            )
        )


def _importing(closed: str) -> Upkeep:
    from pytracecon.upkeep import Upkeep  # noqa: PLC0415 - by now it is there

    return Upkeep(f"modules in {one_line(closed)}", (_READS_ALL,), "they cannot be imported", vital=True)


def _verify(kept: Collection[str], *, bounded: bool) -> None:
    """By what the kernel says, and by trying what must be denied now."""
    now = capabilities.held()
    wanted = sum(1 << capabilities.NUMBERS[name] for name in kept)
    expected = capabilities.Held(wanted, wanted, 0, 0 if bounded else now.bounding, 0, no_new_privs=True)
    if now != expected:
        raise PrivilegesKept(f"privileges were dropped, and are not gone: the kernel says {now}")
    for what, trying in _forbidden(frozenset(kept)):
        try:
            trying()
        except OSError as error:
            # EINVAL: a user namespace that has no other user.
            if error.errno in (errno.EPERM, errno.EACCES) or (error.errno == errno.EINVAL and what == _BECOMING):
                continue
            raise PrivilegesKept(f"privileges were dropped, and {what} failed for another reason: {error}") from error
        raise PrivilegesKept(f"privileges were dropped, and {what} is still possible")


def _forbidden(kept: frozenset[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is not possible without. If it is, the run is over, so it does not matter that it was done."""
    if not kept & {"CAP_SETUID"}:
        other = 0 if os.geteuid() else _SOMEBODY
        yield _BECOMING, lambda: os.setresuid(other, other, other)
        yield "having other groups", lambda: os.setgroups([])
    if not kept & {"CAP_SYS_CHROOT"}:
        yield "chroot", lambda: os.chroot("/")
    if not kept & {"CAP_SYS_ADMIN"}:
        yield "leaving a namespace", lambda: _checked(_libc.unshare(_CLONE_NEWUTS))
        if not kept >= {"CAP_BPF", "CAP_PERFMON"}:
            yield "loading a BPF program", _load_a_program
    if not kept & {"CAP_SYS_PTRACE"} and _is_mightier("1", kept):
        yield "reading another's memory", lambda: os.close(os.open("/proc/1/mem", os.O_RDONLY))


def _is_mightier(pid: str, kept: frozenset[str]) -> bool:
    """Whether it may do what we may not; not where /proc hides it, or it is us."""
    with contextlib.suppress(OSError):
        return os.getpid() != int(pid) and bool(capabilities.held_by(pid).names() - kept)
    return False


def _load_a_program() -> None:
    """Of a kind that unprivileged users may load nowhere."""
    code = ctypes.create_string_buffer(bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0)))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = (ctypes.c_uint64 * 16)(_KPROBE | 2 << 32, ctypes.addressof(code), ctypes.addressof(licence))
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    os.close(_checked(_libc.syscall(number, _PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))))


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
