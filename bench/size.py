"""How much room a tool takes: its own files, and the libraries that it loads and not every system has."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
EVERYWHERE = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libgcc_s", "libstdc++", "libelf", "libz.so")
"""Libraries that are not counted for any of the sides."""
_LOADED = re.compile(r"^\s*(\S+) => (/\S+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def of(parts: Iterable[Path], environment: dict[str, str]) -> dict[str, int]:
    """Bytes of programs and folders, and of the libraries that the programs load."""
    parts = list(parts)
    libraries = {library for part in parts if part.is_file() for library in _libraries(part, environment)}
    return {"own": sum(map(_bytes, parts)), "libraries": sum(map(_bytes, libraries))}


def of_ours(python: str) -> dict[str, int]:
    """The package as it is installed, packed as a wheel packs it, and the packages that it depends on."""
    done = subprocess.run([python, "-m", "bench.size"], check=True, stdout=subprocess.PIPE, cwd=TOP)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _libraries(program: Path, environment: dict[str, str]) -> list[Path]:
    done = subprocess.run(
        ["ldd", str(program)], check=False, capture_output=True, text=True, env=os.environ | environment
    )
    found = [(name, Path(path)) for name, path in _LOADED.findall(done.stdout)]
    return [path.resolve() for name, path in found if not name.startswith(EVERYWHERE)]


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if "__pycache__" not in each.parts]
    return sum(each.stat().st_size for each in files if each.is_file() and not each.is_symlink())


def packed(files: Iterable[Path], top: Path) -> int:
    """Bytes of an archive of them: a wheel, but for its metadata."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in files:
            wheel.write(path, path.relative_to(top))
    return archive.tell()


def _own_files() -> Iterator[Path]:
    """What `pip install` makes of the package: no source in C, and the object for this kind of machine alone."""
    for path in sorted((TOP / "pytracecon").rglob("*")):
        other = path.name.endswith(".bpf.o") and path.name != f"pytracecon-{platform.machine()}.bpf.o"
        if path.suffix in {".py", ".so", ".o", ".typed"} and not other:
            yield path


def _needed(name: str, found: dict[str, int]) -> None:
    """Adds the bytes of a distribution and of all that it needs."""
    distribution = importlib.metadata.distribution(name)
    found[name] = sum(file.size or 0 for file in distribution.files or ())
    for requirement in distribution.requires or ():
        other = _NAME.match(requirement)
        if other and "extra ==" not in requirement and other[0].lower() not in found:
            try:
                _needed(other[0].lower(), found)
            except importlib.metadata.PackageNotFoundError:
                continue  # for another kind of machine, or another Python


def _ours() -> dict[str, int]:
    dependencies: dict[str, int] = {}
    for requirement in tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["dependencies"]:
        if name := _NAME.match(requirement):
            _needed(name[0].lower(), dependencies)
    files = list(_own_files())
    return {
        "own": sum(map(_bytes, files)),
        "packed": packed(files, TOP),
        "libraries": sum(dependencies.values()) + _bytes(_libbpf()),
    }


def _libbpf() -> Path:
    """The system's, as it is mapped into a process that uses it."""
    from pytracecon._libbpf import open_library  # noqa: PLC0415 - only the process that measures ours

    open_library()
    mapped = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split()[-1]).resolve() for line in mapped if "libbpf.so" in line)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_ours()))
