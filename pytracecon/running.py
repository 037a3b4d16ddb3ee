"""A command as a child of ours: held until it is traced, as the user who asked for it, and what it leaves behind.

    with Child(command, user) as child:      # it exists, and has not begun
        ...
        child.begin()
        while child.status is None:
            child.reap()

Between fork and exec nothing but this module runs in the child. Its standard streams, its other descriptors and its
process group are ours: what a terminal sends, it gets from the terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from pytracecon.errors import InvalidValue, MissingPrivilege, PytraceconError
from pytracecon.text import one_line

__all__ = ["Child", "CommandNotRun", "User", "adopting_orphans", "exit_status", "user_for"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_HELD = b"held"
_PR_SET_CHILD_SUBREAPER = 36
_OF_SUDO = ("SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "SUDO_HOME", "SUDO_TTY")


class CommandNotRun(PytraceconError, OSError):
    """The command does not exist (127), or cannot be executed (126), as from a shell."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True, slots=True)
class User:
    """Whom a command is run as; `environment` is what is set for it."""

    uid: int
    gid: int
    name: str | None
    environment: Mapping[str, str]


def user_for(wanted: str | None, environment: Mapping[str, str], euid: int) -> User | None:
    """The user that is wanted, else the one that called sudo; None to stay who we are."""
    if wanted is not None:
        found = _named(wanted)
        if found.pw_uid == euid:
            return None
        if euid != 0:
            raise MissingPrivilege(f"--user: only root may run a command as {found.pw_name} (run with sudo)")
        return User(found.pw_uid, found.pw_gid, found.pw_name, _home(found))
    uid, gid = (environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if euid != 0 or not (_is_number(uid) and _is_number(gid)) or int(uid) == 0:
        return None
    try:
        found = pwd.getpwuid(int(uid))
    except KeyError:
        return User(int(uid), int(gid), None, {})
    home = _home(found)
    if environment.get("HOME") not in (None, pwd.getpwuid(0).pw_dir):  # sudo was told to leave it
        del home["HOME"]
    return User(int(uid), int(gid), found.pw_name, home)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _named(wanted: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(wanted)) if _is_number(wanted) else pwd.getpwnam(wanted)
    except (KeyError, OverflowError, ValueError):
        said = f"--user: {wanted or 'an empty value'} is no user here; give a name or number of /etc/passwd"
        raise InvalidValue(one_line(said)) from None


def _home(found: pwd.struct_passwd) -> dict[str, str]:
    return {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name, "SHELL": found.pw_shell}


def exit_status(status: int) -> int:
    """What a shell would call the end of a process: its status, or 128 + n for signal n (here -n)."""
    return status if status >= 0 else 128 - status


class Child:
    """A child that waits to become `command`. Raises `CommandNotRun` if that cannot be; `with` ends one still held."""

    def __init__(self, command: Sequence[str], user: User | None = None) -> None:
        self._command = command[0]
        self._begun = False
        self.status: int | None = None
        """Once it ended: its exit status, or -n for signal n."""
        held, self._hold = os.pipe()
        self._told, tell = os.pipe()
        # Our parent may have told the kernel to forget children that end; nobody could wait for them then.
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._hold)
            signal.signal(signal.SIGCHLD, before)
            _become(command, user, held, tell)
        os.close(held)
        os.close(tell)
        try:
            self._hear()
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Execute the command."""
        with contextlib.suppress(BrokenPipeError):  # it was killed while it was held: its status tells
            os.write(self._hold, b"!")
        self._hear()
        self._begun = True

    def _hear(self) -> None:
        """Until it is held, or has executed the command, which closes the pipe. Else it says what failed, and why."""
        said = b""
        while said != _HELD and (part := os.read(self._told, 64)):
            said += part
        if said not in (_HELD, b""):
            doing, _, number = said.decode().partition(" ")
            raise _explained(self._command, doing, int(number))

    def reap(self) -> None:
        """Take note of its end, and of that of every orphan that became ours. Waits for nobody."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.status = os.waitstatus_to_exitcode(ended[1])

    def signal(self, number: int) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def left_behind(self) -> dict[int, str]:
        """The processes that came from it and still live, with their names. Of orphans only those that became ours."""
        self.reap()
        return {pid: comm for pid, comm in _descendants(os.getpid()) if pid != self.pid}

    def close(self) -> None:
        """One that is still held goes without having begun. Again: nothing."""
        if self._hold < 0:
            return
        os.close(self._hold)
        os.close(self._told)
        self._hold = -1
        if self.status is None and not self._begun:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _become(command: Sequence[str], user: User | None, held: int, tell: int) -> NoReturn:
    doing = "user"
    try:
        environment = dict(os.environ)
        if user is not None:
            _turn_into(user)
            environment = {name: value for name, value in environment.items() if name not in _OF_SUDO}
            environment |= user.environment
        doing = "find"
        path = _found(command[0], environment)
        os.write(tell, _HELD)
        if os.read(held, 1):
            doing = "run"
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; programs do not expect that
                signal.signal(number, signal.SIG_DFL)
            _execute(path, command, environment)
    except OSError as error:
        os.write(tell, f"{doing} {error.errno}".encode())
    finally:
        os._exit(_NOT_FOUND)


def _turn_into(user: User) -> None:
    if user.name is None:
        os.setgroups([user.gid])
    else:
        os.initgroups(user.name, user.gid)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _found(name: str, environment: Mapping[str, str]) -> str:
    """Where the command is, as a shell finds it."""
    folders = [""] if "/" in name else os.get_exec_path(environment)
    denied = False
    for folder in folders if name else []:
        path = name if "/" in name else f"{folder or '.'}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - false of a folder that is closed to us
            return path
        denied |= os.path.lexists(path)
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number))


def _execute(path: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        os.execve(path, list(command), environment)  # noqa: S606 - to do without a shell is what is asked for
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script that does not name its interpreter: as every shell does.
        os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], environment)  # noqa: S606


def _explained(command: str, doing: str, number: int) -> PytraceconError:
    why = os.strerror(number)
    if doing == "user":
        return MissingPrivilege(f"--user: may not be changed here: {why} (run as root, outside of a user namespace)")
    if number not in (errno.ENOENT, errno.ENOTDIR):
        said = f"{command} cannot be executed: {why}; see its permissions, and those of the folders above it"
        return CommandNotRun(one_line(said), _NOT_EXECUTABLE)
    if doing == "find":
        where = "there is no such file" if "/" in command else "it is nowhere on PATH"
        said = f"{command or 'an empty name'} is no command: {where}; give its path"
    else:
        said = f"{command} cannot be executed: {why}; does the interpreter in its first line exist?"
    return CommandNotRun(one_line(said), _NOT_FOUND)


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Until the end of this, descendants whose parent ended become our children: so they are not lost sight of."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _descendants(of: int) -> Iterator[tuple[int, str]]:
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                before, _, after = (entry / "stat").read_text("utf-8", "backslashreplace").rpartition(") ")
                state, parent = after.split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append((int(entry.name), before.partition(" (")[2]))
    due = [of]
    while due:
        for pid, comm in sorted(children.get(due.pop(), [])):
            yield pid, comm
            due.append(pid)
