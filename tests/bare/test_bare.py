"""What the README promises of a Debian that has nothing installed: it starts, starts again at once, its tests pass."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

CONNECT = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].close()
client.close()
"""

STARTS = """
scripts/start run -- "$PWD/.venv/bin/python" -c "$1" 2>first
scripts/start run -- "$PWD/.venv/bin/python" -c "$1" 2>second
echo; echo first; cat first; echo; echo second; cat second
"""


@pytest.fixture(params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def there(suite: str, *command: str) -> str:
    """What it printed."""
    whole = [str(TOP / "scripts/bare"), suite, *command]
    done = subprocess.run(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_it_installs_what_is_missing_and_traces_and_starts_at_once_the_second_time(suite: str) -> None:
    told = there(suite, "sh", "-euc", STARTS, "sh", CONNECT)
    first, second = told.split("\nsecond\n")
    assert "set-up: installing" in first
    assert "set-up" not in second
    for summary in (first, second):
        assert "1 connection; 1 accepted; 0 lookups; none lost" in summary


def test_its_unit_tests_and_the_wheels_pass(suite: str) -> None:
    told = there(suite, "scripts/test", "unit", "wheel")
    assert re.search(r"^unit .* 0 failed, .* ok", told, re.MULTILINE), told
    assert re.search(r"^wheel .* 0 failed, .* ok", told, re.MULTILINE), told
