"""Every target of the fuzzer takes its seeds, and some thousand inputs made of them, without an error."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from fuzz import TARGETS, in_c
from fuzz.mutations import mutated


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"fuzz.{request.param}")


def test_its_seeds_do_no_harm(target: ModuleType) -> None:
    seeds = target.seeds()
    assert len(seeds) > 1
    for seed in seeds:
        target.run(seed)
    target.run(b"")


def test_inputs_made_of_its_seeds_do_no_harm(target: ModuleType) -> None:
    for data in mutated(target.seeds(), 1500, 1):
        try:
            target.run(data)
        except BaseException as error:
            raise AssertionError(f"python tests/fuzz {target.__name__} --again with {data!r}") from error


def test_the_c_path_to_json_lines_stays_within_its_memory(tmp_path: Path) -> None:
    seeds = in_c.seeds()
    inputs = b"".join(map(in_c.input_of, [*seeds, *mutated(seeds, 20_000, 1)]))
    done = subprocess.run([in_c.build(tmp_path, fuzzer=False)], input=inputs, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
