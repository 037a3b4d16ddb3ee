"""Start and size in a virtual machine, beside bcc's tool in Python, which needs kprobes and the kernel's headers.

Emulated, everything takes some 15 times longer than it should: what stands there compares sides, and nothing else.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

Raw = dict[str, Any]

TOP = Path(__file__).parents[1]
TIMEOUT = 1800
_SCRIPT = """
set -e
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
export BCC_KERNEL_SOURCE={headers}
exec {python} -m bench.peers /tmp {times}
"""


def measure(python: str, kernel: str, times: int) -> Raw:
    found = subprocess.run(
        [TOP / "scripts/kernels", "headers", kernel], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    script = _SCRIPT.format(headers=found, python=python, times=times)
    command = [TOP / "scripts/vm", "run", "--kernel", kernel, "--memory", "3G", "--timeout", TIMEOUT]
    done = subprocess.run(
        [*map(str, command), "--", "sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True, cwd=TOP
    )
    raw: Raw = json.loads(done.stdout.splitlines()[-1])
    return {"kernel": kernel} | raw
