"""What can go wrong, one class per cause, each also the builtin exception that it is.

    PytraceconError
    ├── MissingPrivilege  (PermissionError)  a capability is missing; says which, for what        exit 77
    ├── LockedDown        (PermissionError)  kernel lockdown forbids reading kernel memory        exit 69
    ├── MissingBTF        (OSError)          the kernel has no BTF, or the given file is none     exit 69
    ├── MissingLibbpf     (ImportError)      no libbpf, or one below 1.1                          exit 69
    ├── LimitReached      (OSError)          no descriptor or no memory is left for it            exit 69
    ├── UnsupportedKernel (OSError)          something essential is not in this kernel            exit 69
    ├── VerifierRejected  (OSError)          the kernel refused a program; the log is in `.log`   exit 69
    ├── InvalidValue      (ValueError)       an option or keyword has a value that cannot be      exit 2
    ├── TracerClosed      (RuntimeError)     used after close(), or in a child after fork()
    ├── ThreadsRunning    (RuntimeError)     other threads would keep what is to be given up
    └── PrivilegesKept    (PermissionError)  they were to be given up, and are not gone           exit 77

The text of each is one line that names the cause and the remedy.
"""

from __future__ import annotations

import errno

_LIMITS = {
    errno.EMFILE: "no more files can be opened: raise the limit (ulimit -n 4096, LimitNOFILE=)",
    errno.ENFILE: "this host can open no more files: raise fs.file-max (sysctl)",
    errno.ENOMEM: "there is not enough memory: allow more (MemoryMax=), or give a smaller --ring-size",
}


class PytraceconError(Exception):
    """Base of all errors of this package. `exit_status` is what the command ends with."""

    exit_status = 69
    program = ""
    """The BPF program that it is about, if it is about one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingPrivilege(PytraceconError, PermissionError):
    exit_status = 77


class LockedDown(PytraceconError, PermissionError):
    pass


class MissingBTF(PytraceconError, OSError):
    pass


class MissingLibbpf(PytraceconError, ImportError):
    pass


class LimitReached(PytraceconError, OSError):
    pass


class UnsupportedKernel(PytraceconError, OSError):
    pass


class VerifierRejected(PytraceconError, OSError):
    """A program that the kernel's verifier refused. `program` names it, `log` is the whole verifier log."""

    def __init__(self, message: str, *, program: str = "", log: str = "") -> None:
        super().__init__(message)
        self.program = program
        self.log = log


class InvalidValue(PytraceconError, ValueError):
    exit_status = 2


class TracerClosed(PytraceconError, RuntimeError):
    exit_status = 1

    def __init__(self, message: str = "this tracer is closed: make a new one") -> None:
        super().__init__(message)


class ThreadsRunning(PytraceconError, RuntimeError):
    exit_status = 1


class PrivilegesKept(PytraceconError, PermissionError):
    """What should have been given up was not, or can be had again: nothing may go on then."""

    exit_status = 77


def limit_reached(error: BaseException, doing: str = "") -> LimitReached | None:
    """What an error of the system means that tells of a limit; None of any other."""
    code = errno.ENOMEM if isinstance(error, MemoryError) else error.errno if isinstance(error, OSError) else None
    if code not in _LIMITS:
        return None
    what = doing or (f"opening {error.filename}" if isinstance(error, OSError) and error.filename else "going on")
    found = LimitReached(f"{what} failed: {_LIMITS[code]}")
    found.errno = code
    return found
