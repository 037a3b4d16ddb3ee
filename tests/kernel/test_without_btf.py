"""A kernel that shows no BTF: played in a mount namespace of the child's own, where an empty folder hides it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
BTF = Path("/sys/kernel/btf/vmlinux")
HIDE = 'mount --bind "$0" /sys/kernel/btf && exec "$@"'


def hidden(empty: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytracecon", *options]
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", HIDE, str(empty), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
    )


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_it_says_in_one_line_what_is_missing(empty: Path) -> None:
    with hidden(empty) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (69, "")
    assert err.count("\n") == 1
    assert "has no BTF" in err
    assert "--btf FILE" in err


def test_a_given_file_stands_in_for_it(empty: Path, tmp_path: Path) -> None:
    copy = tmp_path / "btf"
    shutil.copyfile(BTF, copy)
    with socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        port = client.getsockname()[1]
        options = (
            "--btf",
            str(copy),
            "--format",
            "json",
            "--count",
            "1",
            "--events",
            "failed",
            "--local-port",
            str(port),
        )
        with hidden(empty, *options) as process:
            assert process.stderr
            assert process.stderr.readline().startswith("pytracecon: tracing")
            assert client.connect_ex(("127.0.0.1", 1)) != 0
            out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    event = json.loads(out)
    assert (event["event"], event["reason"], event["local_port"]) == ("failed", "refused", port)
