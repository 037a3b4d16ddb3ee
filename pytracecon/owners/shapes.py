r"""What the path of a cgroup (v2) says by its own shape: container, pod, unit. Nobody is asked.

Whoever may make cgroups names them: root and its daemons anywhere, others below what was delegated to them, such as
`/user.slice/user-1000.slice/user@1000.service`. A user can call a cgroup there `sshd.service`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Place", "place_of", "user_of"]

_LONGEST = 4_096  # as many bytes as the kernel shows of a path; of a longer one its end is looked at
_USUAL = 512  # of longer ones so many would take much memory

_ID = re.compile(r"(?:(?P<maker>.*)[-:])?(?P<id>[0-9a-f]{64})(?:\.scope)?", re.DOTALL)
_FARGATE = re.compile(r"[0-9a-f]{32}-[0-9]{1,12}")

_UID = r"([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_POD_FOLDER = re.compile("pod" + _UID)
_POD_PARENTS = frozenset(("kubepods", "burstable", "besteffort"))
_POD_SLICE = re.compile(rf"(?:.*-)?kubepods(?:-burstable|-besteffort)?-pod{_UID}\.slice(?::.*)?", re.DOTALL)
_PODMAN_POD = re.compile(r"(?:.*-)?libpod_pod_([0-9a-f]{64})\.slice", re.DOTALL)

_LXC = "lxc.payload."
_LXC_PARENTS = frozenset(("lxc", "lxc.payload"))  # before LXC 3.1, before LXC 4.0
_MACHINE = re.compile(r"machine-(.+)\.scope", re.DOTALL)
_NSPAWN = re.compile(r"systemd-nspawn@(.+)\.service", re.DOTALL)
_VIRTUAL = re.compile(r"qemu-[0-9]+-.*", re.DOTALL)  # what libvirt calls a virtual machine, which is no container
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")

# unit_name_is_valid() of systemd: no template can run. Of the types with processes of their own, sockets, mounts and
# swaps have those that they start to get ready; a slice has none.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]+)?\.(?:service|scope|socket|mount|swap)")
_LONGEST_UNIT = 255

_USER = re.compile(r"/?user\.slice/user-([0-9]{1,10})\.slice/user@\1\.service(?:/.*)?", re.DOTALL)


class Place(NamedTuple):
    """Where a process runs. Of what is nested, the innermost."""

    container: str | None
    """The id that its runtime gave it (64 hex digits, on Fargate a task's with a number), or the name of an LXC or
    systemd-nspawn machine."""
    pod: str | None
    """The uid of a Kubernetes pod, with dashes if it has any; or the id of one of podman's, 64 hex digits."""
    unit: str | None
    """As systemd spells it: `ssh.service`, `session-3.scope`, `dev-disk-by\\x2duuid-1.swap`."""


_NOWHERE = Place(None, None, None)


def place_of(path: str) -> Place:
    """Never raises, whatever the path is."""
    if len(path) <= _USUAL:
        return _place(path)
    return _place.__wrapped__(path if len(path) <= _LONGEST else path[-_LONGEST:].partition("/")[2])


def user_of(path: str) -> int | None:
    """The user below whose own systemd this is: what runs there, that user started, or somebody on its behalf."""
    found = _USER.fullmatch(path)
    return None if found is None else int(found[1])


@lru_cache(maxsize=4096)
def _place(path: str) -> Place:
    if path in ("", "/"):
        return _NOWHERE
    container = pod = unit = None
    outside = nspawn = None
    parent = grandparent = ""
    for part in path.split("/"):
        # A name that is one already is no folder of names: /lxc/lxc/init.scope.
        in_lxc = parent in _LXC_PARENTS and grandparent not in _LXC_PARENTS
        if found := _ID.fullmatch(part):
            if not (found["maker"] or "").endswith("conmon"):  # which watches the container from outside
                container = found["id"]
        elif part.startswith(_LXC) and len(part) > len(_LXC):
            container = part.removeprefix(_LXC)
        elif in_lxc and part:
            container = part
        elif found := _MACHINE.fullmatch(part):
            name = _unescaped(found[1])
            outside, container = container, container if _VIRTUAL.fullmatch(name) else name
        elif part == "supervisor" and _MACHINE.fullmatch(parent):  # systemd-nspawn itself
            container = outside
        elif found := _NSPAWN.fullmatch(part):
            nspawn = found[1]
        elif part == "payload" and nspawn and _NSPAWN.fullmatch(parent):
            container = nspawn
        elif "ecs" in (parent, grandparent) and _FARGATE.fullmatch(part):
            container = part
        pod = _pod(part, parent) or pod
        unit = _unit(part) or unit
        parent, grandparent = part, parent
    return Place(container, pod, unit)


def _pod(part: str, parent: str) -> str | None:
    found = _POD_SLICE.fullmatch(part) or (_POD_FOLDER.fullmatch(part) if parent in _POD_PARENTS else None)
    if found is None:
        found = _PODMAN_POD.fullmatch(part)
    return None if found is None else found[1].replace("_", "-")


def _unit(part: str) -> str | None:
    # cg_escape() of systemd puts it before names that a controller's file could have, such as memory.service.
    name = part.removeprefix("_")
    return name if len(name) <= _LONGEST_UNIT and _UNIT.fullmatch(name) else None


def _unescaped(name: str) -> str:
    r"""systemd's escapes undone: `my\x2dbox` is my-box."""
    if "\\" not in name:
        return name
    raw = _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), name.encode("utf-8", "surrogatepass"))
    return raw.decode("utf-8", "backslashreplace")
