"""The load: `generator.c`, compiled on the fly."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CPU = 0
"""Where the load runs. The tracer gets another one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator did, as it says itself."""

    pid: int
    connections: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.connections / self.seconds

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Generator:
    def __init__(self, folder: Path) -> None:
        self._program = compiled("generator", folder, "-pthread")

    def run(self, connections: int, first: str, *, cpus: tuple[int, ...] = (CPU,), rate: float = 0) -> Load:
        """`first`, "client" or "server", closes first. A thread a CPU; together so many a second, or all they can."""
        command = [str(self._program), str(connections), first, ",".join(map(str, cpus)), str(rate)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return Load(**json.loads(done.stdout))


def compiled(name: str, folder: Path, *options: str) -> Path:
    """A program of this folder, in C."""
    program = folder / name
    source = Path(__file__).with_name(f"{name}.c")
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    return program
