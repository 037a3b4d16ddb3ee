"""Runs tests/kernel under a stock kernel, in a virtual machine, and checks that they really ran there.

    tests/vm/guest.py KERNEL [--cpus N] [--junitxml=FILE] [PYTEST ARGUMENT...]

The status is pytest's, or scripts/vm's where the guest's kernel complained or did not start. Without arguments all of
tests/kernel runs, and the rungs that the machine outside may lack must have been tested: if nothing ran on one of
them, that is a failure.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

TOP = Path(__file__).resolve().parents[2]
RUNGS = ("fentry", "kprobe")
OLDEST, NEWEST = "5.10", "7.2"
"""Tests marked `once` run in the newest: those that cannot run outside a guest, and that the kernel makes no difference
to. Those marked `oldest` run in that, those marked `ends` in both."""
# A guest is emulated, its Python some 15 times slower than outside.
TIMEOUT, LONG_TIMEOUT = 1500, 3 * 3600
# Two processors, and all on the first but what a test puts on the second: two at work make the tests no faster
# (measured), and one stands still amid everything while the machine outside is busy.
ON_ONE_PROCESSOR = ("taskset", "--cpu-list", "0")
# Nothing can be written there; and what hypothesis brings along takes seconds to import, for tests that do not use it.
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def passed(report: Path) -> list[str]:
    """The names of the tests that ran to their end and passed."""
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 (pytest wrote it just now)
    bad = ("failure", "error", "skipped")
    return [case.get("name", "") for case in cases if not any(case.find(kind) is not None for kind in bad)]


def run(kernel: str, cpus: int, report: Path, arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="guest-") as folder:
        inside = Path(folder) / "report.xml"
        tests = arguments or ["tests/kernel", "-m", " and ".join(("not slow", *left_out(kernel)))]
        timeout = LONG_TIMEOUT if any("long" in argument.split() for argument in arguments) else TIMEOUT
        pytest = [*ON_ONE_PROCESSOR, sys.executable, "-m", "pytest", *WITHOUT]
        machine = [str(TOP / "scripts/vm"), "run", "--kernel", kernel, "--cpus", str(cpus), "--rw", folder]
        machine += ["--timeout", str(timeout)]
        with subprocess.Popen([*machine, "--", *pytest, f"--junitxml={inside}", *tests], cwd=TOP) as guest:
            signal.signal(signal.SIGTERM, lambda *_: guest.terminate())  # it stops the virtual machine
            status = guest.wait()
        if not inside.exists():
            print(f"{kernel}: the guest left no report")
            return status or 1
        shutil.copyfile(inside, report)
        if not arguments and not all(tested_on(rung, passed(inside)) for rung in RUNGS):
            return status or 1
    return status


def left_out(kernel: str) -> tuple[str, ...]:
    marks = {OLDEST: ("once",), NEWEST: ("oldest",)}.get(kernel, ("once", "ends", "oldest"))
    return tuple(f"not {mark}" for mark in marks)


def tested_on(rung: str, names: list[str]) -> bool:
    count = sum(rung in name for name in names)
    print(f"{count} tests passed on the rung {rung}")
    return count > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernel", help="5.10, 6.1…: what scripts/vm knows")
    parser.add_argument("--junitxml", type=Path, default=Path("/dev/null"), metavar="FILE", help="pytest's report")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="default: %(default)s")
    options, arguments = parser.parse_known_args()
    return run(options.kernel, options.cpus, options.junitxml, arguments)


if __name__ == "__main__":
    sys.exit(main())
