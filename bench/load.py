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
        self._program = folder / "generator"
        source = Path(__file__).with_name("generator.c")
        subprocess.run(
            ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self._program, source], check=True
        )

    def run(self, connections: int, first: str) -> Load:
        """`first`, "client" or "server", closes first."""
        done = subprocess.run(
            [self._program, str(connections), first, str(CPU)], check=True, stdout=subprocess.PIPE, text=True
        )
        return Load(**json.loads(done.stdout))
