"""`run` before and after the command: who it is run as, how it ends, and what is said of it. Needs no root."""

from __future__ import annotations

import inspect
import os
import pwd
import signal
import sys
import time
from pathlib import Path

import pytest

from pytracecon.cli import main
from pytracecon.commands import run
from pytracecon.errors import InvalidValue, MissingPrivilege
from pytracecon.running import Child, CommandNotRun, adopting_orphans, exit_status, user_for

NOBODY = pwd.getpwnam("nobody")


def awaited(child: Child) -> int:
    while child.status is None:
        child.reap()
        time.sleep(0.001)
    return child.status


def outcome(*command: str) -> int:
    with Child(command) as child:
        child.begin()
        return exit_status(awaited(child))


@pytest.mark.parametrize(
    ("line", "command", "form"),
    [
        ("-- make test", ["make", "test"], "text"),
        ("--format json -- ls --format json", ["ls", "--format", "json"], "json"),
        ("-- run -- -x", ["run", "--", "-x"], "text"),
        ("--", [], "text"),
    ],
)
def test_what_stands_behind_two_dashes_is_the_commands_own(line: str, command: list[str], form: str) -> None:
    options = run.parser().parse_args(line.split())
    assert (options.command, options.format) == (command, form)


@pytest.mark.parametrize(
    ("line", "status", "named"),
    [
        ("run", 2, "-- COMMAND"),
        ("run --", 2, "-- COMMAND"),
        ("run ls -l", 2, "two dashes"),
        ("run --frobnicate -- ls", 2, "--frobnicate"),
        ("run --allow-net 10.0.0.1/8 -- ls", 2, "--allow-net"),
        ("run --allow-host .. -- ls", 2, "--allow-host"),
        ("run --format csv -- ls", 2, "--format"),
        ("run --user nobody-at-all -- ls", 2, "--user"),
        ("run --ring-size 100K -- ls", 2, "--ring-size"),
        ("run -o /nowhere/at/all -- ls", 74, "/nowhere/at/all"),
        ("run -- no-such-command", 127, "no-such-command"),
        ("run -- /no/such/command", 127, "/no/such/command"),
        ("run -- /etc/passwd", 126, "/etc/passwd"),
        ("run -- /", 126, "/"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_run(
    line: str, status: int, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(line.split()) == status
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("pytracecon: ")
    assert err.count("\n") == 1
    assert named in err


@pytest.mark.parametrize(
    ("command", "status"),
    [(("true",), 0), (("false",), 1), (("sh", "-c", "exit 77"), 77), (("sh", "-c", "kill -USR1 $$"), 128 + 10)],
)
def test_the_end_of_a_command(command: tuple[str, ...], status: int) -> None:
    assert outcome(*command) == status


def test_a_held_child_has_not_begun_and_goes_if_it_never_shall(tmp_path: Path) -> None:
    file = tmp_path / "made"
    with Child(["touch", str(file)]) as child:
        os.kill(child.pid, 0)
    assert child.status is not None
    assert not file.exists()
    with Child(["touch", str(file)]) as child:
        assert not file.exists()
        child.begin()
        assert awaited(child) == 0
    assert file.exists()


def test_a_held_child_that_is_killed_tells_by_its_status() -> None:
    with Child(["true"]) as child:
        os.kill(child.pid, signal.SIGKILL)
        child.begin()
        assert awaited(child) == -signal.SIGKILL


def executable(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o755)
    return str(path)


def test_a_script_needs_no_first_line(tmp_path: Path) -> None:
    assert outcome(executable(tmp_path / "script", "exit $1\n"), "9") == 9


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [("one", "#!/no/such/interpreter\n", 127), ("two", "#!/etc/passwd\n", 126)],
)
def test_a_script_whose_interpreter_is_not_there(tmp_path: Path, name: str, content: str, status: int) -> None:
    with pytest.raises(CommandNotRun) as refused, Child([executable(tmp_path / name, content)]) as child:
        child.begin()
    assert refused.value.exit_status == status


def test_a_file_on_the_path_that_nobody_may_execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    with pytest.raises(CommandNotRun, match="cannot be executed") as refused:
        Child(["tool"])
    assert refused.value.exit_status == 126
    executable(tmp_path / "tool", "exit 4\n")
    assert outcome("tool") == 4


def test_signals_that_python_ignores_are_not_ignored_in_it() -> None:
    ignored = "0x$(sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status)"
    script = f"exit $(( ({ignored} & {1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1}) != 0 ))"
    assert outcome("sh", "-c", script) == 0


def open_files() -> set[int]:
    """Without that of the listing itself."""
    return {int(name) for name in os.listdir("/proc/self/fd") if Path("/proc/self/fd", name).is_symlink()}


def test_nothing_of_ours_is_open_in_it() -> None:
    inherited = sorted(fd for fd in open_files() if os.get_inheritable(fd))
    script = f"{inspect.getsource(open_files)}\nassert sorted(open_files()) == {inherited}, open_files()"
    assert outcome(sys.executable, "-c", f"import os\nfrom pathlib import Path\n{script}") == 0


def test_orphans_become_ours_and_are_named() -> None:
    with adopting_orphans(), Child(["sh", "-c", "(sleep 600 >&- 2>&- &)"]) as child:
        child.begin()
        assert awaited(child) == 0
        while "sleep" not in (left := child.left_behind()).values():  # still the shell that will execute it
            assert left
            time.sleep(0.001)
        (pid,) = left
        os.kill(pid, signal.SIGKILL)
        while child.left_behind():
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("wanted", "environment", "euid", "uid"),
    [
        (None, {}, 0, None),
        (None, {"SUDO_UID": "65534", "SUDO_GID": "65534"}, 0, 65534),
        (None, {"SUDO_UID": "65534", "SUDO_GID": "65534"}, 65534, None),
        (None, {"SUDO_UID": "0", "SUDO_GID": "0"}, 0, None),
        (None, {"SUDO_UID": "65534"}, 0, None),
        (None, {"SUDO_UID": "x", "SUDO_GID": "1"}, 0, None),
        (None, {"SUDO_UID": "4000000", "SUDO_GID": "4000001"}, 0, 4000000),
        ("root", {"SUDO_UID": "65534", "SUDO_GID": "65534"}, 0, None),
        ("nobody", {}, 0, 65534),
        ("65534", {}, 0, 65534),
    ],
)
def test_whom_it_is_run_as(wanted: str | None, environment: dict[str, str], euid: int, uid: int | None) -> None:
    user = user_for(wanted, environment, euid)
    assert (None if user is None else user.uid) == uid


def test_a_user_has_a_home() -> None:
    user = user_for("nobody", {}, 0)
    assert user is not None
    assert user.environment == {
        "HOME": NOBODY.pw_dir,
        "USER": "nobody",
        "LOGNAME": "nobody",
        "SHELL": NOBODY.pw_shell,
    }


@pytest.mark.parametrize(("home", "kept"), [("/root", False), (None, False), ("/home/somebody", True)])
def test_a_home_that_sudo_was_told_to_leave_is_left(home: str | None, kept: bool) -> None:
    environment = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": "1"} | ({} if home is None else {"HOME": home})
    user = user_for(None, environment, 0)
    assert user is not None
    assert ("HOME" not in user.environment) == kept


@pytest.mark.parametrize("wanted", ["", "nobody-at-all", "-1", "99999999999999999999", "٣"])
def test_who_does_not_exist_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidValue, match="--user"):
        user_for(wanted, {}, 0)


def test_only_root_can_choose() -> None:
    with pytest.raises(MissingPrivilege, match="only root"):
        user_for("root", {}, 1000)
