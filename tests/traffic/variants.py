"""The generator built otherwise: with musl, and with no C library to look into."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from traffic.actor import BUILT, SOURCES, is_current

INCLUDES = ("-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu")
"""The kernel's headers, behind musl's own."""

VARIANTS = {
    "musl": ("musl-gcc", *INCLUDES),
    "musl-static": ("musl-gcc", "-static", *INCLUDES),
}


def build_variant(folder: Path, variant: str) -> Path:
    """As `actor.build`."""
    program, kept = folder / f"traffic-{variant}", BUILT.with_name(f"traffic-{variant}")
    if not is_current(kept):
        target = kept if os.access(kept.parents[1], os.W_OK) else program
        target.parent.mkdir(exist_ok=True)
        compiler, *flags = VARIANTS[variant]
        flags += ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
        fresh = target.with_suffix(".new")
        subprocess.run([compiler, *flags, "-o", fresh, *(path for path in SOURCES if path.suffix == ".c")], check=True)
        fresh.rename(target)
    if kept.exists():
        shutil.copy2(kept, program)
    return program
