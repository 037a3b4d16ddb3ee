"""nscd, from Debian's package of that name: unpacked only, as once installed it answers for the whole machine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from traffic.actor import BUILT, DEADLINE, Actor, TrafficError
from traffic.resolver import Place

PROGRAM = BUILT.parent / "nscd" / "usr" / "sbin" / "nscd"
OTHERS = ("passwd", "group", "services", "netgroup")


class Nscd:
    """Answers for this actor and all that it forks later: nobody else sees its socket."""

    def __init__(self, place: Place, client: Actor, folder: Path) -> None:
        run = folder / "run"
        (run / "nscd").mkdir(parents=True)
        settings = ["enable-cache hosts yes", "persistent hosts no", "shared hosts no"]
        settings += [f"enable-cache {other} no" for other in OTHERS]
        (folder / "nscd.conf").write_text("\n".join(settings) + "\n")
        client.do("mounts")
        client.do("mount", run, "/run")
        enter = ["nsenter", f"--net={place.path}", f"--mount=/proc/{client.pid}/ns/mnt"]
        self._process = subprocess.Popen(
            [*enter, PROGRAM, "--foreground", "--config-file", folder / "nscd.conf"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + DEADLINE
        while not (run / "nscd" / "socket").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise TrafficError(f"nscd does not serve: {self._process.communicate()[0]}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=DEADLINE)
