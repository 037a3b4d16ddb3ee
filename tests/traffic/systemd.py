"""A systemd of the tests' own: process 1 of its own namespaces, with control groups that are gone at the end.

It has the machine's files, read-only, and nothing of what the machine runs: it starts what the test asks for.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from traffic.actor import DEADLINE
from traffic.network import NAME

SYSTEMD = Path("/usr/lib/systemd/systemd")
_UNITS = "/run/systemd/system"
_KEPT = "/run/kept"
# Of version 1 those that it can manage; what it is not given it does not miss.
_MANAGED = ("memory", "pids", "devices", "name=systemd")
_JOURNAL = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToConsole=no\n"
_TARGET = "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n"
_BOOT = """
set -e
mount --make-rprivate /
umount --recursive --lazy /sys/fs/cgroup
{cgroups}
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
{kept}
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount --bind {logs} /var/log
mount -o remount,bind,rw /var/log
for place in /tmp /var/tmp /var/lib /var/cache; do mount -t tmpfs -o mode=755 tmpfs $place; done
mkdir -p {units} /run/systemd/journald.conf.d
printf %s {journal} >/run/systemd/journald.conf.d/test.conf
printf %s {target} >{units}/test.target
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    {systemd} --system --unit=test.target --log-target=null --show-status=no
"""


class Systemd:
    """`pid` is its number outside, `folders` those of the machine that its units may want to see."""

    def __init__(self, pid: int, folders: Sequence[Path], group: Path) -> None:
        self.pid = pid
        self.folders = folders
        self._group = group

    def adopt(self, pid: int) -> None:
        """A process of outside is in a control group of these: those of version 2 have their root here."""
        group = self._group / "adopted"
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))

    def kept(self) -> str:
        """A setting that shows a unit these folders of the machine, read-only, where they are."""
        return "BindReadOnlyPaths=" + " ".join(f"{_KEPT}/{at}:{folder}" for at, folder in enumerate(self.folders))

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command inside."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
        return subprocess.run(
            [*enter, *map(str, command)], capture_output=True, text=True, check=check, timeout=DEADLINE
        )

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && printf %s "$2" >"$1"', "sh", path, text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def install(self, name: str, unit: str, **drop_ins: str) -> None:
        """A unit, as an administrator installs it, with settings of its own."""
        self.write(f"{_UNITS}/{name}", unit)
        for each, text in drop_ins.items():
            self.write(f"{_UNITS}/{name}.d/{each}.conf", text)
        self.run("systemctl", "daemon-reload")

    def shows(self, unit: str, *properties: str) -> dict[str, str]:
        """What `systemctl show` says."""
        said = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def journal(self, unit: str) -> list[str]:
        """The messages of a service."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", f"--unit={unit}", "--output=cat", "--no-pager").stdout.splitlines()

    def started(self) -> bool:
        done = self.run("systemctl", "is-active", "test.target", "systemd-journald.service", check=False)
        return done.stdout.split() == ["active", "active"]


@contextmanager
def new_systemd(*folders: Path) -> Iterator[Systemd]:
    """One that has started. Whatever runs in it is killed at the end."""
    # Logs are on a disk: a tmpfs is memory, and counts as the service's that writes there.
    with (
        tempfile.TemporaryDirectory(prefix=NAME, dir="/var/tmp") as logs,
        _control_groups() as (groups, mounts),
    ):
        Path(logs).chmod(0o755)
        script = _BOOT.format(
            cgroups=mounts,
            logs=logs,
            kept="\n".join(
                f"mkdir -p {_KEPT}/{at} && mount --bind {shlex.quote(str(folder))} {_KEPT}/{at}"
                for at, folder in enumerate(folders)
            ),
            units=_UNITS,
            journal=shlex.quote(_JOURNAL),
            target=shlex.quote(_TARGET),
            systemd=SYSTEMD,
        )
        enter = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in groups)
        unshare = "exec unshare --pid --fork --mount --mount-proc --cgroup --uts --ipc --net --kill-child sh -c"
        with subprocess.Popen(["sh", "-ec", f"{enter}{unshare} {shlex.quote(script)}"]) as outer:
            try:
                systemd = Systemd(_child(outer), folders, groups[-1])
                _await(systemd.started)
                yield systemd
            finally:
                outer.kill()


def _child(outer: subprocess.Popen[bytes]) -> int:
    """Process 1 of the namespace, when it has become systemd."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    found: list[int] = []

    def is_there() -> bool:
        assert outer.poll() is None, "systemd ended at once"
        found[:] = map(int, children.read_text().split())
        return bool(found) and Path(f"/proc/{found[0]}/exe").resolve().name == SYSTEMD.name

    _await(is_there)
    return found[0]


def _await(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true"
        time.sleep(0.05)


@contextmanager
def _control_groups() -> Iterator[tuple[list[Path], str]]:
    """A new group in each hierarchy that systemd manages, and the commands that mount these as it expects them."""
    found = [line.split()[:4] for line in Path("/proc/self/mounts").read_text().splitlines() if " cgroup" in line]
    old = {
        name: place
        for _, place, kind, options in found
        if kind == "cgroup"
        for name in _MANAGED
        if name in options.split(",")
    }
    (new,) = {place for _, place, kind, _ in found if kind == "cgroup2"}
    groups = [Path(tempfile.mkdtemp(prefix=NAME, dir=place)) for place in (*old.values(), new)]
    top = "/sys/fs/cgroup"
    if old:
        unified = f"{top}/unified"
        lines = [f"mount -t tmpfs -o mode=755 tmpfs {top}"]
        for name in old:
            place = f"{top}/{name.removeprefix('name=')}"
            option = f"none,{name}" if "=" in name else name
            lines.append(f"mkdir {place} && mount -t cgroup -o {option} cgroup {place}")
        lines.append(f"mkdir {unified} && mount -t cgroup2 cgroup2 {unified}")
    else:
        lines = [f"mount -t cgroup2 cgroup2 {top}"]
    try:
        yield groups, "\n".join(lines)
    finally:
        for group in groups:
            _await(lambda group=group: _removed(group))


def _removed(group: Path) -> bool:
    """Whether it is gone, with all groups in it; not while somebody dies in one."""
    with suppress(OSError):
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()
    return not group.exists()
