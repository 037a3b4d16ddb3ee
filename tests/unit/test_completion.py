"""Completion, in the shells themselves, and what it and the man page are made of."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pytracecon.cli import main
from pytracecon.commands import SHELLS, VERBS
from pytracecon.commands.completion import completion
from pytracecon.commands.definitions import definitions

DEADLINE = 60.0
EVERY = [(verb.verb, name) for verb in definitions() for option in verb.options for name in option.names]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (folder / shell).write_text(completion(shell))
    return {shell: folder / shell for shell in SHELLS}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def in_bash(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    asked = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pytracecon; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", asked, str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_definitions_are_those_of_the_parsers() -> None:
    assert [verb.verb for verb in definitions()] == list(VERBS)
    found = {verb.verb: {name: option for option in verb.options for name in option.names} for verb in definitions()}
    assert found["trace"]["--format"].choices[:3] == ("table", "json", "csv")
    assert found["trace"]["-p"] is found["trace"]["--pid"]
    assert found["trace"]["-p"].value == "PID"
    assert found["trace"]["-p"].repeatable
    assert found["trace"]["--children"].value is None
    assert found["trace"]["--probes"].choices == ("auto", "fentry", "kprobe", "tracepoint")
    assert [verb.verb for verb in definitions() if verb.takes_command] == ["run"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_option_is_in_it(shell: str) -> None:
    """As words: what comes of them, the tests of each shell tell."""
    words = set(re.findall(r"[\w-]+", completion(shell)))
    assert words >= set(VERBS)
    assert words >= {name.lstrip("-") if shell == "fish" else name for _, name in EVERY}


def test_the_shell_itself_takes_it(shell: str, scripts: dict[str, Path]) -> None:
    done = subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_prints_it(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["--completion", "bash"]) == 0
        assert capfd.readouterr() == (completion("bash"), "")
        assert main(["--completion", "tcsh"]) == 2
        assert "bash" in capfd.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("verb", VERBS)
def test_bash_offers_every_option_of_a_verb(verb: str, scripts: dict[str, Path]) -> None:
    offered = in_bash(scripts["bash"], "pytracecon", verb, "-")
    assert sorted(set(offered) - {"--"}) == sorted(name for of, name in EVERY if of == verb)
    assert ("--" in offered) == (verb == "run")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["l"], ["latency", "life", "lookups"]),
        (["run", "--allow-n"], ["--allow-net"]),
        (["--allow-n"], []),
        (["--format", "j"], ["json", "journal"]),
        (["--format", "=", "c"], ["csv"]),
        (["run", "--format", ""], ["text", "json"]),
        (["lookups", "--probes", "k"], ["kprobe"]),
        (["--direction", ""], ["out", "in"]),
        (["--port", ""], []),
        (["--uid", "roo"], ["root"]),
        (["-p", "1"], None),
        (["run", "--", "pytho"], None),
        (["run", "--", "env", "/etc/passw"], None),
    ],
)
def test_bash_offers_what_fits(words: list[str], offered: list[str] | None, scripts: dict[str, Path]) -> None:
    found = in_bash(scripts["bash"], "pytracecon", *words)
    if offered is None:
        assert found and all(each.startswith(words[-1]) for each in found)
    else:
        assert found == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pytracecon l", ["latency", "life", "lookups"]),
        ("pytracecon run --allow-n", ["--allow-net"]),
        ("pytracecon --allow-n", []),
        ("pytracecon --format j", ["journal", "json"]),
        ("pytracecon run --format ", ["json", "text"]),
        ("pytracecon run --btf /etc/nsswitch", ["/etc/nsswitch.conf"]),
        ("pytracecon run -- pytracecon lo", ["lookups"]),
    ],
)
def test_fish_offers_what_fits(line: str, offered: list[str], scripts: dict[str, Path]) -> None:
    command = ["fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{line}'"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [each.partition("\t")[0] for each in done.stdout.splitlines()] == offered


class Zsh:
    """An interactive zsh on a terminal of its own: it completes nowhere else."""

    def __init__(self, script: Path) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb"})  # noqa: S606
        os.write(self._terminal, b"unsetopt zle_bracketed_paste; autoload -U compinit && compinit -D -u\n")
        os.write(self._terminal, f"source {script}; echo rea''dy\n".encode())
        self._until(b"ready")

    def _until(self, words: bytes) -> bytes:
        said = b""
        deadline = time.monotonic() + DEADLINE
        while words not in said:
            assert select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))[0], said
            said += os.read(self._terminal, 4096)
        return said

    def after_tab(self, line: str, expected: str) -> None:
        """The line is completed to this, or the test ends in time."""
        os.write(self._terminal, f"{line}\t".encode())
        self._until(expected.encode())
        os.write(self._terminal, b"\x15")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture
def zsh(scripts: dict[str, Path]) -> Iterator[Zsh]:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    running = Zsh(scripts["zsh"])
    yield running
    running.close()


def test_zsh_completes_verbs_options_values_and_commands(zsh: Zsh) -> None:
    zsh.after_tab("pytracecon loo", "lookups ")
    zsh.after_tab("pytracecon run --allow-n", "--allow-net ")
    zsh.after_tab("pytracecon run --format js", "json ")
    zsh.after_tab("pytracecon --format ta", "table ")
    zsh.after_tab("pytracecon run -- pytracecon doc", "doctor ")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_with_its_output(verb: str) -> None:
    (found,) = [each for each in definitions() if each.verb == verb]
    lines = [line.strip() for line in found.examples.splitlines()]
    shown = [at for at, line in enumerate(lines) if line.startswith("# pytracecon")]
    assert shown, "a command behind its prompt"
    assert lines[shown[0] + 1], "and what it shows"


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_terminal_of_80_columns(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main([verb, "--help"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert [line for line in capfd.readouterr().out.splitlines() if len(line) > 80] == []


def modules(code: str, *arguments: str) -> set[str]:
    """Those that are there after this code."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules, file=sys.stderr)", *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_little(verb: str) -> None:
    """Time depends on the machine; the number of modules beyond those of Python and argparse does not."""
    more = modules("from pytracecon.cli import main; main()", verb, "--help") - modules("import argparse")
    assert len(more) <= 60, sorted(more)
