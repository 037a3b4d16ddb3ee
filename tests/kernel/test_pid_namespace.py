"""Inside a PID namespace, process numbers are not the kernel's: a filter on them would mean somebody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_a_process_number_is_refused_there() -> None:
    command = [sys.executable, "-m", "pytracecon", "--pid", "1", "--duration", "1"]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *command],
        capture_output=True,
        text=True,
        cwd=TOP,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "pytracecon: --pid: in a PID namespace of its own, numbers are not the kernel's; run it on the host\n"
    )
