"""A root of the test's own for actors, with a copy of the C library and of what loads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from traffic.actor import Actor
from traffic.resolver import Place


class Jail:
    """What is in `root` may be changed at any time."""

    def __init__(self, place: Place, root: Path, program: Path) -> None:
        self.root = root
        self._place = place
        self._proc, self._etc = root / "proc", root / "etc"
        for folder in (self._proc, self._etc):
            folder.mkdir(parents=True)
        said = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
        self.files = {Path(path).name: self._inside(path) for path in re.findall(r"(/\S+)", said)}

    @property
    def libc(self) -> Path:
        return self.files["libc.so.6"]

    def _inside(self, path: str) -> Path:
        copy = self.root / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        return copy

    def hold(self, actor: Actor, name: str) -> None:
        """The actor lives in it from now on, as a program that was started there."""
        actor.do("mounts")
        actor.do("mount", "/proc", self._proc)
        actor.do("mount", self._place.etc, self._etc)
        actor.do("root", self.root)
        actor.execute(name)

    def replace_libc(self) -> None:
        """Another file takes its place, as a package manager does it; whoever uses the old one keeps it."""
        fresh = self.libc.with_suffix(".new")
        shutil.copy(self.libc, fresh)
        fresh.rename(self.libc)
