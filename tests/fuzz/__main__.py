"""Runs targets with atheris, one after the other, each in a process of its own.

    python tests/fuzz                          each of them 700,000 times
    python tests/fuzz hellos options --runs 10000
    python tests/fuzz hellos --again FILE      one input that failed

What the fuzzer found worth keeping, and the inputs that failed, are kept in tests/fuzz/corpus.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from fuzz import IN_C, TARGETS  # noqa: E402

_RUNS = 700_000
_LONGEST = 1024
_SECONDS = 20
"""That one input may take."""
_DONE = re.compile(rb"^#(\d+)\s+DONE\s+cov: (\d+) ft: \d+ corp: (\d+)/.* exec/s: (\d+)", re.MULTILINE)


def fuzzed(target: str, runs: int) -> int:
    """The status of the process, which says what it does on standard error."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE), target, "--inside"] if target != IN_C else [_program(folder)]
    command += [f"-runs={runs}", f"-max_len={_LONGEST}", f"-timeout={_SECONDS}"]
    command += [f"-artifact_prefix={CORPUS}/{target}-", str(folder)]
    log = CORPUS / f"{target}.log"
    with log.open("wb") as said:
        status = subprocess.run(command, stdout=said, stderr=said, check=False).returncode
    found = _DONE.findall(log.read_bytes())
    if status or not found:
        print(f"{target}: FAILED (status {status}), see {log}", flush=True)
        return status or 1
    done, branches, kept, rate = map(int, found[-1])
    print(f"{target}: {done:,} runs, {rate:,} a second; {branches} edges, {kept} inputs", flush=True)
    return 0


def _missing(targets: Sequence[str]) -> str | None:
    if targets != [IN_C] and importlib.util.find_spec("atheris") is None:
        return "tests/fuzz: atheris is not installed: pip install -e '.[fuzz]'"
    if IN_C in targets and shutil.which("clang") is None:
        return f"tests/fuzz: {IN_C} needs clang with libFuzzer: install clang and its libclang-rt-dev"
    return None


def _program(folder: Path) -> str:
    from fuzz import in_c  # noqa: PLC0415 - it needs what has been built

    _plant(in_c.seeds(), folder)
    return str(in_c.build(CORPUS, fuzzer=True))


def _plant(seeds: list[bytes], folder: Path) -> None:
    for at, seed in enumerate(seeds):
        (folder / f"seed-{at}").write_bytes(seed)


def _inside(target: str, arguments: list[str]) -> None:
    import atheris  # noqa: PLC0415 - only where it is needed, and so must be there

    with atheris.instrument_imports(include=["pytracecon", "http.client"]):
        module = importlib.import_module(f"fuzz.{target}")
    run: Callable[[bytes], None] = module.run
    _plant(module.seeds(), Path(arguments[-1]))
    atheris.Setup([target, *arguments], run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[2:3] == ["--inside"]:
        _inside(sys.argv[1], sys.argv[3:])
        return 0
    every = (*TARGETS, IN_C)
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*every, []], metavar="TARGET", help=", ".join(every))
    parser.add_argument("--runs", type=int, default=_RUNS, help="of each target (default: %(default)s)")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run this input alone")
    options = parser.parse_args()
    missing = _missing(options.targets or every)
    if options.again is None and missing:
        sys.exit(missing)
    if options.again is not None:
        for target in options.targets:
            importlib.import_module(f"fuzz.{target}").run(options.again.read_bytes())
        return 0
    return max([fuzzed(target, options.runs) for target in options.targets or every])


if __name__ == "__main__":
    sys.exit(main())
