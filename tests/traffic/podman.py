"""podman, from Debian's package of that name: unpacked only, as once installed it listens for the whole machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from traffic.actor import BUILT, DEADLINE, TrafficError, cgroup2_mount

TOP = BUILT.parent / "podman"
PROGRAM = TOP / "usr" / "bin" / "podman"
LIBRARIES = f"{TOP}/usr/lib/{os.uname().machine}-linux-gnu"
# Locks in files: those in /dev/shm would be left there. Limits that every machine lets be set.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
conmon_path = ["{folder}/conmon"]
events_logger = "none"
helper_binaries_dir = ["{top}/usr/lib/podman"]
lock_type = "file"
runtime = "crun"
[engine.runtimes]
crun = ["{folder}/crun"]
[network]
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""
# podman gives the programs that it starts an environment of its own.
WRAPPER = """#!/bin/sh
LD_LIBRARY_PATH={libraries} exec {top}/usr/bin/{name} "$@"
"""


class Podman:
    """An engine, all of it in one folder. Its API is served at `socket`. In its containers is nothing but busybox."""

    def __init__(self) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="podman-")  # podman wants short paths
        self._folder = folder = Path(self._own.name)
        self.socket = folder / "podman.sock"
        self._environment = os.environ | {
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "HOME": str(folder),
            "LD_LIBRARY_PATH": LIBRARIES,
            "TMPDIR": str(folder),
        }
        (folder / "containers.conf").write_text(SETTINGS.format(top=TOP, folder=folder))
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        for name in ("conmon", "crun"):
            (folder / name).write_text(WRAPPER.format(top=TOP, libraries=LIBRARIES, name=name))
            (folder / name).chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "root" / "bin").mkdir(parents=True)
        shutil.copy2(shutil.which("busybox") or "/bin/busybox", folder / "root" / "bin" / "busybox")
        self._service = subprocess.Popen(
            self._command("system", "service", "--time", "0", f"unix://{self.socket}"),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + DEADLINE
        while not self.socket.exists():
            if self._service.poll() is not None or time.monotonic() > deadline:
                self._service.kill()
                raise TrafficError(f"podman does not serve: {self._service.communicate()[0]}")
            time.sleep(0.01)

    def create(self, name: str, *applet: str | int, network: str = "none") -> str:
        """The id of a container that runs this applet of busybox once it is started."""
        options = ["--name", name, "--network", network, "--rootfs", str(self._folder / "root")]
        return self._run("create", *options, "/bin/busybox", *map(str, applet))

    def start(self, name: str) -> None:
        self._run("start", name)

    def await_ended(self, name: str) -> None:
        self._run("wait", name)

    def rename(self, name: str, new: str) -> None:
        self._run("rename", name, new)

    def close(self) -> None:
        self._service.terminate()
        self._service.communicate(timeout=DEADLINE)
        self._run("rm", "--all", "--force", "--time", "0")
        self._own.cleanup()
        mount = cgroup2_mount()
        for left in ("libpod_parent/conmon", "libpod_parent"):
            if mount is not None and (mount / left).exists():
                (mount / left).rmdir()

    def _run(self, *words: str) -> str:
        made = subprocess.run(self._command(*words), env=self._environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise TrafficError(f"podman {words[0]}: {made.stderr}")
        return made.stdout.strip()

    def _command(self, *words: str) -> list[str | Path]:
        """What it mounts, nobody else sees."""
        folders: list[str | Path] = ["--root", self._folder / "graph", "--runroot", self._folder / "run"]
        return ["unshare", "--mount", PROGRAM, *folders, "--tmpdir", self._folder / "tmp", *words]
