"""podman, from Debian's package of that name: unpacked only, as once installed it listens for the whole machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from traffic.actor import BUILT, DEADLINE, TrafficError

TOP = BUILT.parent / "podman"
PROGRAM = TOP / "usr" / "bin" / "podman"
# Locks in files: those in /dev/shm would be left there.
SETTINGS = """
[engine]
cgroup_manager = "cgroupfs"
conmon_path = ["{top}/usr/bin/conmon"]
events_logger = "none"
helper_binaries_dir = ["{top}/usr/lib/podman"]
lock_type = "file"
runtime = "crun"
[engine.runtimes]
crun = ["{top}/usr/bin/crun"]
[network]
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""


class Podman:
    """An engine with containers that never run, all of it in one folder. Its API is served at `socket`."""

    def __init__(self) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="podman-")  # podman wants short paths
        folder = Path(self._own.name)
        self.socket = folder / "podman.sock"
        self._folder = folder
        self._environment = os.environ | {
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "HOME": str(folder),
            "LD_LIBRARY_PATH": f"{TOP}/usr/lib/{os.uname().machine}-linux-gnu",
            "TMPDIR": str(folder),
        }
        (folder / "containers.conf").write_text(SETTINGS.format(top=TOP, folder=folder))
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        for name in ("tmp", "root"):
            (folder / name).mkdir()
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

    def create(self, name: str) -> str:
        """The container's id."""
        return self._run("create", "--name", name, "--network", "none", "--rootfs", self._folder / "root", "/bin/true")

    def rename(self, name: str, new: str) -> None:
        self._run("rename", name, new)

    def close(self) -> None:
        self._service.terminate()
        self._service.communicate(timeout=DEADLINE)
        self._run("rm", "--all", "--force")
        self._own.cleanup()

    def _run(self, *words: str | Path) -> str:
        made = subprocess.run(self._command(*words), env=self._environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise TrafficError(f"podman {words[0]}: {made.stderr}")
        return made.stdout.strip()

    def _command(self, *words: str | Path) -> list[str | Path]:
        """What it mounts, nobody else sees."""
        folders: list[str | Path] = [
            "--root",
            self._folder / "graph",
            "--runroot",
            self._folder / "run",
            "--tmpdir",
            self._folder / "tmp",
        ]
        return ["unshare", "--mount", PROGRAM, *folders, *words]
