"""What is looked up on this machine, now: processes, users, network namespaces, control groups."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import stat
from pathlib import Path
from typing import NamedTuple

from pytracecon.errors import InvalidValue, MissingPrivilege
from pytracecon.filters.values import NumbersLike, PlacesLike, each, integer, refusal
from pytracecon.text import one_line

_LARGEST_PID = (1 << 22) - 1
_NOBODY_AT_ALL = (1 << 32) - 1  # the kernel's "no such user"
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, the same on every host
_NAMED_NAMESPACES = Path("/run/netns")  # where `ip netns` keeps them


def pids(option: str, value: NumbersLike | None) -> tuple[int, ...]:
    """Processes (thread groups) that are there now."""
    if value is None:
        return ()
    right = "give the number of a running process"
    if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
        raise InvalidValue(f"{option}: in a PID namespace of its own, numbers are not the kernel's; run it on the host")
    return tuple(sorted({_process(option, item) for item in each(option, value, right)}))


def _process(option: str, item: object) -> int:
    pid = integer(item)
    if pid is None or not 1 <= pid <= _LARGEST_PID:
        raise refusal(option, item, f"is no process number: 1 to {_LARGEST_PID}")
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise refusal(option, pid, "is no running process; give one that ps shows") from None
    except PermissionError:
        raise MissingPrivilege(f"{option}: /proc/{pid} cannot be read (run with sudo)") from None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    process = int(fields["Tgid"])
    if process != pid:
        raise refusal(option, pid, f"is a thread of process {process}; give {process}")
    if fields["State"].split()[0] in "ZX" and int(fields["Threads"]) <= 1:
        raise refusal(option, pid, "has ended; give a running process")
    return pid


def uids(option: str, value: NumbersLike | None) -> tuple[int, ...]:
    """User ids, given as such or as names."""
    if value is None:
        return ()
    return tuple(sorted({_user(option, item) for item in each(option, value, "give a user's number or name")}))


def _user(option: str, item: object) -> int:
    uid = integer(item)
    if uid is None and isinstance(item, str) and item and "\0" not in item:
        try:
            return pwd.getpwnam(item).pw_uid
        except KeyError:
            raise refusal(option, item, "is no user here; give a number or a name of /etc/passwd") from None
    if uid is None or not 0 <= uid < _NOBODY_AT_ALL:
        raise refusal(option, item, f"is no user: a name, or a number from 0 to {_NOBODY_AT_ALL - 1}")
    return uid


def network_namespaces(option: str, value: PlacesLike | None) -> tuple[int, ...]:
    """Inode numbers, as `readlink /proc/PID/ns/net` shows them. All digits are a pid, a slash makes a path."""
    if value is None:
        return ()
    right = "give a path, a name of `ip netns` or a pid"
    return tuple(sorted({_network_namespace(option, item) for item in each(option, value, right, commas=False)}))


def _network_namespace(option: str, item: object) -> int:
    pid = integer(item)
    if pid is not None:
        path = Path(f"/proc/{_process(option, pid)}/ns/net")
    elif isinstance(item, (str, os.PathLike)) and os.fspath(item) and "\0" not in os.fspath(item):
        text = os.fspath(item)
        path = Path(text) if "/" in text else _NAMED_NAMESPACES / text
    else:
        raise refusal(option, item, "is no namespace; give a path, a name of `ip netns` or a pid")
    try:
        # Only what is known to be a regular file (namespaces are) is opened: no FIFO, no device.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            kind = _namespace_kind(handle) if stat.S_ISREG(found.st_mode) else 0
        finally:
            os.close(handle)
    except PermissionError:
        why = f"{option}: {item} may not be looked at without CAP_SYS_PTRACE (run with sudo)"
        raise MissingPrivilege(one_line(why)) from None
    except OSError as error:
        what = f"cannot be opened: {error.strerror}; give a path, a name that `ip netns` lists, or a pid"
        raise refusal(option, item, what) from None
    if kind != _CLONE_NEWNET:
        raise refusal(option, item, "is no network namespace; give one such as /proc/PID/ns/net or /run/netns/NAME")
    return found.st_ino


def _namespace_kind(handle: int) -> int:
    """The CLONE_NEW… of a namespace; 0 for any other file."""
    readable = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(readable, _NS_GET_NSTYPE)
    except OSError:
        return 0
    finally:
        os.close(readable)


class Mount(NamedTuple):
    """Where a cgroup2 tree is mounted, which part of it, and the device number of what lies in it."""

    point: str
    root: str
    device: int


def mountinfo() -> str:
    r"""What is mounted here. Only \n ends a line of it: whoever may mount something chooses the other characters."""
    return Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")


def cgroup2_mounts(mountinfo: str) -> list[Mount]:
    """From the text of /proc/self/mountinfo; those that show the whole tree first."""
    found: list[Mount] = []
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            device, root, point = before.split(" ")[2:5]
            major, minor = device.split(":")
            found.append(Mount(_unescaped(point), _unescaped(root), os.makedev(int(major), int(minor))))
    return sorted(found, key=lambda mount: mount.root != "/")


def cgroups(option: str, value: PlacesLike | None) -> tuple[int, ...]:
    """Ids of cgroup2 directories, given as paths, or as /proc/PID/cgroup shows them."""
    if value is None:
        return ()
    mounts = cgroup2_mounts(mountinfo())
    if not mounts:
        raise InvalidValue(f"{option}: no cgroup2 is mounted here; mount -t cgroup2 none /sys/fs/cgroup")
    right = "give the path of a cgroup2 directory"
    return tuple(sorted({_cgroup(option, item, mounts) for item in each(option, value, right, commas=False)}))


def _cgroup(option: str, item: object, mounts: list[Mount]) -> int:
    right = f"give a directory below {mounts[0].point}, or what follows 0:: in /proc/PID/cgroup"
    if not isinstance(item, (str, os.PathLike)) or not os.fspath(item) or "\0" in os.fspath(item):
        raise refusal(option, item, f"is no control group; {right}")
    text = os.fspath(item)
    elsewhere = False
    for path in _candidates(text, mounts):
        try:
            found = Path(path).stat()
        except OSError:
            continue
        if found.st_dev == mounts[0].device and stat.S_ISDIR(found.st_mode):
            return found.st_ino  # since Linux 5.5 the inode number is the cgroup's id
        elsewhere = True
    raise refusal(option, item, f"{'is no cgroup2 directory' if elsewhere else 'does not exist'}; {right}")


def _candidates(text: str, mounts: list[Mount]) -> list[str]:
    """The path as it stands, then as one within each mount."""
    paths = [text] if text.startswith("/") else []
    inside = "/" + text.lstrip("/")
    for point, root, _device in mounts:
        top = root.rstrip("/")
        if inside == top or inside.startswith(top + "/"):
            paths.append(point + inside.removeprefix(top))
    return paths


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
