"""Where the bytes go: standard output, or a file that is nobody else's.

Descriptors are written to directly: nothing waits in a buffer of Python's for the end of the process, and every event
is either written or counted as not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable, Iterable

from pytracecon.errors import PytraceconError
from pytracecon.outputs import Piece
from pytracecon.text import one_line

__all__ = ["NotReopened", "OutputFailed", "ReaderGone", "Sink", "open_file", "standard_output"]

_FLUSH_AT = 1 << 16


class OutputFailed(PytraceconError, OSError):
    """The output could not be opened or written. Of the command line only; the library writes nothing."""

    exit_status = 74


class NotReopened(OutputFailed):
    """The name leads to no file that could be written. The old one is still there, and is written on."""


class ReaderGone(Exception):
    """Whoever read our output has closed it: the end, and no error."""


class Sink:
    """Collects pieces and writes them when `flush` is called or much has come together."""

    def __init__(self, handle: int, name: str, *, owned: bool = False, restart: bool = False) -> None:
        self._handle = handle
        self._name = name
        self._owned = owned
        self._restart = restart
        self._pieces: list[Piece] = []
        self._size = 0
        mode = os.fstat(handle).st_mode
        self._is_terminal = os.isatty(handle)
        self._has_reader = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self.written = 0
        """Events that were written."""
        self.unwritten = 0
        """Events that could not be written."""

    @property
    def pending(self) -> bool:
        return bool(self._pieces)

    @property
    def has_reader(self) -> bool:
        """Whether somebody could go away while nothing is written (`reader_is_gone` tells)."""
        return self._has_reader

    @property
    def can_reopen(self) -> bool:
        """Whether it is a file, which may be moved away."""
        return self._owned

    @property
    def is_terminal(self) -> bool:
        return self._is_terminal

    def begin(self, header: bytes) -> None:
        """Now it is certain that there will be output: what a file held before goes, and the header is written."""
        if self._restart:
            os.ftruncate(self._handle, 0)
        elif self._owned and not _ends_with_a_line(self._handle):
            self._pieces.append((b"\n", 0))  # who wrote it was killed: what is torn is one line, and not ours
        if header:
            self._pieces.append((header, 0))
        self.flush()

    def write(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._pieces.append(piece)
            self._size += len(piece[0])
        if self._size >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Raises `ReaderGone`, or `OutputFailed` when it cannot be written; then all that is left is counted."""
        data = memoryview(b"".join([piece for piece, _ in self._pieces]))
        done = 0
        try:
            while done < len(data):
                done += self._write_some(data[done:])
        except OSError as error:
            self._give_up(done, error)
        self.written += sum(events for _, events in self._pieces)
        self._pieces.clear()
        self._size = 0

    def reopen(self, header: Callable[[], bytes]) -> None:
        """Go on in the file that has the name now, at its end: it was moved away, and there may be none yet.

        All that came before is in the old file, whole. An empty file gets a header. Raises `NotReopened` if it cannot
        be opened; then it goes on in the old one.
        """
        self.flush()
        try:
            fresh = _open_path(self._name, os.O_APPEND)
        except OutputFailed as error:
            raise NotReopened(f"{error}; it goes on in the file that it had") from None
        old, self._handle = self._handle, fresh
        if os.fstat(fresh).st_size == 0 and (first := header()):
            self._pieces.append((first, 0))
        _close(old, self._name)
        self.flush()

    def reader_is_gone(self) -> bool:
        poll = select.poll()
        poll.register(self._handle, 0)
        return bool(poll.poll(0))

    def terminal_width(self) -> int | None:
        """The columns of a terminal; None for anything else. COLUMNS goes first, as everywhere."""
        if not self._is_terminal:
            return None
        given = os.environ.get("COLUMNS", "")
        if given.isascii() and given.isdigit() and int(given) > 0:
            return int(given)
        try:
            return os.get_terminal_size(self._handle).columns or None
        except OSError:  # it has just been closed; writing will tell
            return None

    def close(self) -> None:
        """Without `flush`. Idempotent."""
        if not self._owned:
            return
        self._owned = False
        _close(self._handle, self._name)

    def _write_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._handle, data)
            except BlockingIOError:  # whoever shares the pipe has made it non-blocking
                poll = select.poll()
                poll.register(self._handle, select.POLLOUT)
                poll.poll()

    def _give_up(self, done: int, error: OSError) -> None:
        written, torn = _whole_events(self._pieces, done)
        lost = sum(events for _, events in self._pieces) - written
        self.written += written
        self.unwritten += lost
        self._pieces.clear()
        self._size = 0
        if error.errno in (errno.EPIPE, errno.ECONNRESET) or (error.errno == errno.EIO and self._is_terminal):
            raise ReaderGone from None
        if torn and self._owned and stat.S_ISREG((found := os.fstat(self._handle)).st_mode):
            end = os.lseek(self._handle, 0, os.SEEK_CUR)
            if end == found.st_size:  # else somebody has appended behind it
                os.ftruncate(self._handle, end - torn)
        said = f"cannot be written: {error.strerror}"
        if lost:
            said += f"; {lost} event{'' if lost == 1 else 's'} lost"
        raise OutputFailed(_refusal(self._name, f"{said}; make room, or give another file with -o")) from None


def _whole_events(pieces: list[Piece], done: int) -> tuple[int, int]:
    """How many events are whole in the first `done` bytes, and how many bytes follow the last whole one."""
    whole = 0
    for data, events in pieces:
        if done < len(data):
            lines = data.count(b"\n", 0, done) if events > 1 else 0
            return whole + lines, done - (data.rfind(b"\n", 0, done) + 1 if lines else 0)
        done -= len(data)
        whole += events
    return whole, 0


def standard_output() -> Sink:
    try:
        writable = fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        writable = False
    if not writable:
        raise OutputFailed("standard output is closed; give a file with -o")
    return Sink(1, "standard output")


def open_file(path: str, *, append: bool) -> Sink:
    """A file, of mode 0600 if it is new.

    Never through a link and never a pipe: whoever can write to the folder could otherwise choose what root
    overwrites, or keep it waiting.
    """
    handle = _open_path(path, os.O_APPEND if append else 0)
    regular = stat.S_ISREG(os.fstat(handle).st_mode)
    return Sink(handle, path, owned=True, restart=regular and not append)


def _open_path(path: str, how: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | how, 0o600)
    except OSError as error:
        raise OutputFailed(_refusal(path, _why_not(error))) from None
    found = os.fstat(handle)
    regular = stat.S_ISREG(found.st_mode)
    if not regular and not stat.S_ISCHR(found.st_mode):
        os.close(handle)
        raise OutputFailed(_refusal(path, "is a pipe or socket; write to standard output and use the shell's >"))
    if regular and found.st_nlink > 1:
        os.close(handle)
        raise OutputFailed(_refusal(path, "has other names (hard links); remove it first, or give another file"))
    os.set_blocking(handle, True)
    return handle


def _ends_with_a_line(handle: int) -> bool:
    """Or is empty, or cannot be read."""
    try:
        with open(f"/proc/self/fd/{handle}", "rb", buffering=0) as file:
            return file.seek(0, os.SEEK_END) == 0 or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
    except OSError:
        return True


def _close(handle: int, name: str) -> None:
    try:
        os.close(handle)
    except OSError as error:  # a file system may tell only now
        raise OutputFailed(_refusal(name, f"was not written whole: {error.strerror}")) from None


def _why_not(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link, which is never followed; give the file itself"
    if error.errno == errno.ENXIO:
        return "is a pipe or socket; write to standard output and use the shell's >"
    return f"cannot be opened: {error.strerror}; give another file"


def _refusal(name: str, what: str) -> str:
    return one_line(f"{name} {what}")
