"""The man page: all that the parsers define, and what man makes of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pytracecon import __version__
from pytracecon.cli import main
from pytracecon.commands import VERBS
from pytracecon.commands.definitions import Definition, Group, Option, definitions
from pytracecon.commands.man import STATUSES, _page, man

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a reader sees."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man and groff are not installed")
    page = tmp_path_factory.mktemp("man") / "pytracecon.8"
    page.write_text(man())
    done = subprocess.run(
        ["man", "--warnings", "-l", page],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "TERM": "dumb"},
    )
    assert done.stderr == ""
    return re.sub(r".\x08", "", done.stdout)


def sections(page: str) -> dict[str, str]:
    """By their headings, which begin a line."""
    parts = re.split(r"^(?=\S)", page, flags=re.MULTILINE)
    return {part.partition("\n")[0]: part for part in parts}


def test_every_verb_and_option_is_described(rendered: str) -> None:
    found = sections(rendered)
    for verb in definitions():
        assert re.search(rf"^ +{verb.verb} ", found["VERBS"], re.MULTILINE) or f" {verb.verb}\n" in found["VERBS"]
        own = found[f"PYTRACECON {verb.verb.upper()}"]
        for option in verb.options:
            for name in option.names:
                assert name in own or name in found["OPTIONS OF MOST VERBS"]
            assert max(option.names, key=len, default="") in own


def test_what_an_option_does_is_told(rendered: str) -> None:
    flowing = re.sub(r"\s", "", rendered)
    for option in (option for verb in definitions() for option in verb.options):
        assert re.sub(r"\s", "", option.help) in flowing, option


def test_examples_stand_as_they_are(rendered: str) -> None:
    lines = {line.strip() for line in rendered.splitlines()}
    for verb in definitions():
        assert {line.strip() for line in verb.examples.splitlines()} <= lines


def test_it_says_which_version_it_tells_of(rendered: str) -> None:
    assert f"pytracecon {__version__}" in rendered.splitlines()[-1]


def test_statuses_are_those_of_the_readme() -> None:
    table = (TOP / "README.md").read_text().partition("## Exit statuses")[2].partition("\n## ")[0]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(STATUSES)


def test_the_command_prints_it(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["--man"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr() == (man(), "")


def test_text_is_never_taken_for_a_request() -> None:
    option = Option(("--odd",), "A'B", ".SH not a heading \\ 'quoted'")
    verb = Definition("odd", "'s", ".TH", "odd", (Group("options", "", (option,)),), ".so /etc/passwd\n'x", False)
    lines = list(_page([verb], "1"))
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests == {'.\\"', ".TH", ".SH", ".SS", ".nh", ".ad", ".nf", ".fi", ".B", ".TP", ".PP"}
    assert r"\&.SH not a heading \e \(aqquoted\(aq" in lines
    assert r"\&.so /etc/passwd" in lines


def test_each_verb_has_a_section_once() -> None:
    headings = [line for line in man().splitlines() if line.startswith(".SH PYTRACECON ")]
    assert headings == [f".SH PYTRACECON {verb.upper()}" for verb in VERBS]
