"""Runs the stages of the whole test, counts what they tested, and ends with one line as pytest does.

    scripts/test [STAGE...]      only these
    scripts/test --list          which there are

Stages run one after the other and show their output. Guests too: two that run side by side on two cores, emulated as
they are, take several times as long as one after the other. A guest leaves most of one core, though: what needs no
quiet runs beside the guests, and is shown when it is done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

TOP = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
KERNELS = ("5.10", "6.1", "6.12", "7.2")
OTHER_CPUS = (1, 4)
"""Guests usually have two. What is counted for each CPU, and what CPUs do to each other, is tested with these too."""
OF_CPUS = ("test_losses.py", "test_lifetimes.py", "test_bytes.py", "test_environment.py")
TESTS_FAILED, TIMED_OUT = 1, 124
GRACE = 20
EXCUSED = 2
"""Failures of a stage that are looked at again: more are no accident."""
AGAIN, AGAIN_IN_GUESTS = 3, 1


@dataclass(frozen=True)
class Stage:
    """A command. What pytest runs tells its counts in a report; any other is one test by its exit status."""

    name: str
    command: list[str]
    pytest: bool = False
    guest: bool = False
    beside: bool = False
    """It may run beside guests: it measures no time, and looks at nothing that others change."""
    long: bool = False
    """Takes an hour or more, so it runs only when it is named."""

    @property
    def timeout(self) -> int:
        """Seconds; several times what it takes on an idle machine. Guests have a limit of their own below this."""
        if self.long:
            return 3 * 3600
        return 1600 if self.guest else 1500


@dataclass
class Outcome:
    stage: Stage
    status: int
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    excused: int = 0

    def line(self) -> str:
        verdict = "ok" if self.status == 0 else f"FAILED (status {self.status})"
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        note = f", {self.excused} failed once" if self.excused else ""
        return f"{self.stage.name:12} {self.seconds:7.1f} s  {counts:40} {verdict}{note}"


def stages() -> list[Stage]:
    c_files = [
        path for folder in ("bpf", "pytracecon", "tests", "bench") for path in sorted((TOP / folder).rglob("*.[ch]"))
    ]
    written = [str(path) for path in c_files if path.name not in ("vmlinux.h", "_ring.c")]
    return [
        Stage("ruff", [PYTHON, "-m", "ruff", "check"]),
        Stage("format", [PYTHON, "-m", "ruff", "format", "--check"]),
        Stage("mypy", [PYTHON, "-m", "mypy"], beside=True),
        Stage("clang-format", [str(Path(PYTHON).with_name("clang-format")), "--dry-run", "--Werror", *written]),
        Stage("unit", [PYTHON, "-m", "pytest", "tests/unit"], pytest=True, beside=True),
        Stage("wheel", [PYTHON, "-m", "pytest", "tests/wheel"], pytest=True, beside=True),
        Stage("kernel", [PYTHON, "-m", "pytest", "tests/kernel"], pytest=True),
        *(Stage(f"vm-{kernel}", [PYTHON, "tests/vm/guest.py", kernel], pytest=True, guest=True) for kernel in KERNELS),
        Stage("long", [PYTHON, "-m", "pytest", "-m", "long", "tests/unit", "tests/kernel"], pytest=True, long=True),
        Stage("bare", [PYTHON, "-m", "pytest", "tests/bare"], pytest=True, long=True),
        Stage("fuzz", [PYTHON, "tests/fuzz"], long=True),
        *(
            Stage(
                f"long-{kernel}",
                [PYTHON, "tests/vm/guest.py", kernel, "-m", "long and not slow", "tests/kernel"],
                pytest=True,
                guest=True,
                long=True,
            )
            for kernel in KERNELS
        ),
        *(
            Stage(
                f"long-{cpus}-cpu",
                [
                    *(PYTHON, "tests/vm/guest.py", KERNELS[-1], "--cpus", str(cpus), "-m", "not slow"),
                    *(f"tests/kernel/{name}" for name in OF_CPUS),
                ],
                pytest=True,
                guest=True,
                long=True,
            )
            for cpus in OTHER_CPUS
        ),
    ]


def run(stage: Stage, folder: Path, out: TextIO) -> Outcome:
    report = folder / f"{stage.name}.xml"
    command = [*stage.command, f"--junitxml={report}"] if stage.pytest else stage.command
    started = time.monotonic()
    print(f"\n=== {stage.name}: started", file=out, flush=True)
    status = ended(command, stage.timeout, out)
    outcome = Outcome(stage, status, time.monotonic() - started)
    count(outcome, report)
    failures = failed_tests(report) if outcome.status == TESTS_FAILED and stage.pytest and report.exists() else []
    if 0 < len(failures) == outcome.failed <= EXCUSED and passes_again(stage, failures, out):
        outcome.status, outcome.failed = 0, 0
        outcome.passed += len(failures)
        outcome.excused = len(failures)
    print(f"=== {outcome.line()}", file=out, flush=True)
    return outcome


def run_aside(chosen: list[Stage], folder: Path) -> list[Outcome]:
    """What each says is shown when it is done."""
    outcomes = []
    for stage in chosen:
        with (folder / f"{stage.name}.txt").open("w+", errors="backslashreplace") as out:
            outcomes.append(run(stage, folder, out))
            out.seek(0)
            print(out.read(), end="", flush=True)
    return outcomes


def failed_tests(report: Path) -> list[str]:
    """As pytest's command line names them. An error is none: something may have been left behind."""
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 (pytest wrote it just now)
    return [
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None
    ]


def passes_again(stage: Stage, failures: list[str], out: TextIO) -> bool:
    """Whether what failed passes by itself, each time: then the machine was at fault, or chance."""
    times = AGAIN_IN_GUESTS if stage.guest else AGAIN
    command = [argument for argument in stage.command if not argument.startswith("tests/") or argument.endswith(".py")]
    for attempt in range(1, times + 1):
        print(f"=== {stage.name}: {', '.join(failures)} again, {attempt} of {times}", file=out, flush=True)
        if ended([*command, *failures], stage.timeout, out) != 0:
            return False
    return True


def ended(command: list[str], timeout: float, out: TextIO) -> int:
    """Its status once it ended; 124 if that took too long, and then it was asked, at last made, to end."""
    process = subprocess.Popen(command, cwd=TOP, stdout=out, stderr=None if out is sys.stdout else out)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        print(f"=== not done after {timeout} s", file=out, flush=True)
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return TIMED_OUT


def count(outcome: Outcome, report: Path) -> None:
    """A stage that failed counts at least one failure, one that passed at least one test."""
    if outcome.stage.pytest and report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 (pytest wrote it just now)
            outcome.failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            outcome.skipped += int(suite.get("skipped", 0))
            outcome.passed += int(suite.get("tests", 0))
        outcome.passed -= outcome.failed + outcome.skipped
    elif outcome.status == 0:
        outcome.passed = 1
    if outcome.status and not outcome.failed:
        outcome.failed = 1


def run_all(chosen: list[Stage]) -> list[Outcome]:
    """In their order, but that guests come last, with the rest beside them."""
    guests = [stage for stage in chosen if stage.guest]
    beside = [stage for stage in chosen if stage.beside and guests]
    alone = [stage for stage in chosen if stage not in guests and stage not in beside]
    with tempfile.TemporaryDirectory(prefix="pytracecon-") as name, ThreadPoolExecutor(1) as other:
        folder = Path(name)
        outcomes = [run(stage, folder, sys.stdout) for stage in alone]
        aside = other.submit(run_aside, beside, folder)
        outcomes += [run(stage, folder, sys.stdout) for stage in guests]
        return aside.result() + outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__.partition("\n")[0])
    known = {stage.name: stage for stage in stages()}
    parser.add_argument(
        "stages", nargs="*", choices=[*known, []], metavar="STAGE", help="only these; default: all but long"
    )
    parser.add_argument("--list", action="store_true", help="tell the stages")
    parser.add_argument("--set-up-took", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print(*known, sep="\n")
        return 0
    started = time.monotonic() - options.set_up_took
    usual = [name for name, stage in known.items() if not stage.long]
    outcomes = run_all([known[name] for name in options.stages or usual])
    print(f"\n=== summary\n{'set-up':12} {options.set_up_took:7.1f} s")
    for outcome in outcomes:
        print(outcome.line())
    total = [sum(getattr(outcome, what) for outcome in outcomes) for what in ("passed", "failed", "skipped")]
    print("=== {} passed, {} failed, {} skipped in {:.0f} s".format(*total, time.monotonic() - started))
    return 1 if any(outcome.status for outcome in outcomes) else 0


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main())
