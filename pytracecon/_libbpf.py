"""The system's libbpf through ctypes: its C API as a few owners, and no policy.

    Libbpf ── open_object() ─▶ Object ─┬─ programs[name] ─▶ Program ── attach…() ─▶ Link
                                       └─ maps[name] ─────▶ Map
    Libbpf ── vmlinux_btf(), parse_btf() ─▶ Btf

`open_library()` finds libbpf, and nothing is loaded before it is called. The table `PROTOTYPES` of `_libbpf_api` is all
that is known of the C side; its column `failed` is the one check between C and Python: a call that failed raises
OSError. Loading and attaching raise the leaves of `pytracecon.errors` instead (each an OSError too; `refusals` finds
which), with `.program` and `.errno` set.

An Object owns its programs, maps and links: used after its close() they raise TracerClosed and touch no freed memory.
libbpf's own messages go to the logger "pytracecon.libbpf", never to standard error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import deque
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_uint32, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytracecon._libbpf_api import (
    ENOTSUPP,
    FLOOR,
    LIBBPF_ERRNO_START,
    PRINT_FUNCTION,
    PROTOTYPES,
    MapInfo,
    OpenOpts,
    ProgInfo,
    ProgLoadOpts,
)
from pytracecon._libbpf_btf import KERNEL_BTF, NO_KERNEL_BTF, Btf
from pytracecon._libbpf_file import cause, dlopen_file, dlopen_system, require_regular
from pytracecon._libbpf_map import Map
from pytracecon._libbpf_objects import Link, Object, Program
from pytracecon._ring import lib as quiet
from pytracecon.errors import MissingBTF
from pytracecon.logs import DEBUG, INFO, WARNING, is_heard, logger
from pytracecon.refusals import caused_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["KERNEL_BTF", "Btf", "Libbpf", "Link", "Map", "Message", "Object", "Program", "open_library"]

_LOGGER = "pytracecon.libbpf"


class Message(NamedTuple):
    """Something that libbpf said; `level` is one of logging's."""

    level: int
    text: str


class _Heard(threading.local):
    """What libbpf said during this thread's last call, and an exception (Ctrl-C) that came up while it was noted."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.kept: deque[Message] | None = None
        self.raised: BaseException | None = None
        self.trying = False


_LEVELS = (WARNING, INFO, DEBUG)  # in the order of enum libbpf_print_level
_KEPT_LENGTH = 4096  # of a message in Libbpf.messages: a verifier log can have megabytes


def _note(level: int, text: int | None, args: int | None) -> int:
    """Take what libbpf prints: only note it, since an exception in a callback has nowhere to go; call() logs it.

    A va_list parameter is one pointer to the ABI's state, on x86-64 (an array decays) as on arm64 (a struct above
    16 bytes goes by reference), so it can be passed on as it came, once.
    """
    try:
        line = c_char_p()
        if _libc.vasprintf(byref(line), c_void_p(text), c_void_p(args)) < 0:
            return 0
        said = (line.value or b"").decode(errors="replace").removeprefix("libbpf: ").rstrip("\n")
        _libc.free(line)
        _heard.messages.append(Message(_LEVELS[level], said))
        if _heard.kept is not None:
            _heard.kept.append(Message(_LEVELS[level], said[:_KEPT_LENGTH]))
    except BaseException as error:  # noqa: BLE001 - call() raises it
        _heard.raised = error
    return 0


_heard = _Heard()
_libc = ctypes.CDLL(None)
_print = PRINT_FUNCTION(_note)
_quiet_print = int(quiet.quiet_before(ctypes.cast(_print, c_void_p).value or 0))
"""For every libbpf of this process. Details do not get as far as Python unless somebody wants them: a start has
thousands of them."""


class Libbpf:
    """One loaded libbpf, for good: libraries are never unloaded. From `open_library()`."""

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self.path = path
        self.version: tuple[int, int] = (library.libbpf_major_version(), library.libbpf_minor_version())
        self.messages: deque[Message] = deque(maxlen=50)
        """The last that libbpf said, in whatever thread."""
        self._functions: dict[str, tuple[Callable[..., Any], Callable[[Any], int]]] = {}
        for prototype in PROTOTYPES:
            try:
                function = getattr(library, prototype.name)
            except AttributeError:
                if prototype.since > FLOOR:
                    continue
                raise
            function.restype = prototype.restype
            function.argtypes = prototype.argtypes
            self._functions[prototype.name] = (function, prototype.failed)
        self.call("libbpf_set_print", PRINT_FUNCTION(_quiet_print))

    def has(self, name: str) -> bool:
        """Whether this libbpf has a function that is newer than the floor."""
        return name in self._functions

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the table. Every call to libbpf goes through here; OSError if it failed."""
        heard = _heard
        heard.messages = []
        heard.kept = self.messages
        if name not in self._functions:
            since = next(prototype.since for prototype in PROTOTYPES if prototype.name == name)
            raise OSError(errno.ENOSYS, f"{name} needs libbpf {since[0]}.{since[1]}, this is {self.version_text}")
        function, failed = self._functions[name]
        quiet.quiet_let_through(is_heard(_LOGGER, DEBUG))
        ctypes.set_errno(0)  # or a NULL without errno would be blamed on an older failure
        result = function(*args)
        code = failed(result)
        if heard.raised is not None:
            raised, heard.raised = heard.raised, None
            raise raised
        if heard.messages and (not heard.trying or is_heard(_LOGGER, DEBUG)):
            for message in heard.messages:
                logger(_LOGGER).log(DEBUG if heard.trying else message.level, "%s", message.text)
        if code:
            raise OSError(code, f"{name}: {self.strerror(code)}")
        return result

    @contextmanager
    def trying(self) -> Iterator[None]:
        """A failure is an answer here, and its exception says all: libbpf's warnings are logged as details."""
        before, _heard.trying = _heard.trying, True
        try:
            yield
        finally:
            _heard.trying = before

    @property
    def said(self) -> tuple[Message, ...]:
        """What libbpf said during the last call in this thread."""
        return tuple(_heard.messages)

    @property
    def version_text(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    def strerror(self, code: int) -> str:
        """The text of an errno, of libbpf's own (4000 and up), or of the kernel-internal ENOTSUPP that leaks out."""
        if code == ENOTSUPP:
            return "Operation not supported (ENOTSUPP)"
        if code < LIBBPF_ERRNO_START:
            return os.strerror(code)
        text = ctypes.create_string_buffer(128)
        self._functions["libbpf_strerror"][0](code, text, len(text))
        return text.value.decode(errors="replace")

    def open_object(
        self,
        image: bytes,
        *,
        name: str = "pytracecon",
        btf: str | None = None,
        types: str | None = None,
        log_level: int = 0,
    ) -> Object:
        """Open (not load) the BPF object in `image`; `btf` replaces the kernel's BTF for relocation. MissingBTF.

        `types` does so too, and is known to be right; it is read when the object is loaded.
        """
        return Object(self, self.open_pointer(image, name=name, btf=btf, types=types, log_level=log_level))

    def open_pointer(
        self,
        image: bytes,
        *,
        name: str = "pytracecon",
        btf: str | None = None,
        types: str | None = None,
        log_level: int = 0,
    ) -> int:
        """The same, for an `Object` to be made of. To be closed by it, or by `close_pointer()`."""
        if btf is not None:
            self.parse_btf(btf).close()
        by = types if btf is None else btf
        opts = OpenOpts(
            sz=ctypes.sizeof(OpenOpts),
            object_name=name.encode(),
            btf_custom_path=None if by is None else os.fsencode(by),
            kernel_log_level=log_level,
        )
        # libbpf is done with `image` when this returns (it calls bpf_object__elf_finish), and copies the paths.
        return int(self.call("bpf_object__open_mem", image, len(image), byref(opts)))

    def close_pointer(self, pointer: int) -> None:
        self.call("bpf_object__close", pointer)

    def read_types(self, pointer: int, program: str) -> None:
        """All of the kernel's, for an object that is to be loaded; else its loading would begin with that.

        It has a `program` that attaches by the number of a type. OSError if that is absent, or the type.
        """
        found = self.call("bpf_object__find_program_by_name", pointer, program.encode())
        _, _, place = self.call("bpf_program__section_name", found).partition(b"/")
        self.call("bpf_program__set_attach_target", found, 0, place)

    def vmlinux_btf(self) -> Btf:
        """The running kernel's BTF. MissingBTF if it has none."""
        try:
            return Btf(self, self.call("btf__load_vmlinux_btf"))
        except OSError as error:
            raise caused_by(MissingBTF(NO_KERNEL_BTF), error) from error

    def parse_btf(self, path: str) -> Btf:
        """The BTF in a file, raw or in an ELF section. MissingBTF if there is none."""
        try:
            require_regular(path)
            return Btf(self, self.call("btf__parse", os.fsencode(path), None))
        except OSError as error:
            text = (
                f"{path} is no BTF file ({cause(error)}): give one of this very kernel, such as a copy of its "
                f"{KERNEL_BTF}"
            )
            raise caused_by(MissingBTF(text), error) from error

    def num_possible_cpus(self) -> int:
        return int(self.call("libbpf_num_possible_cpus"))

    def probe_prog_type(self, prog_type: int) -> bool:
        """Whether this process may load programs of that type on this kernel, found by loading one."""
        return bool(self.call("libbpf_probe_bpf_prog_type", prog_type, None))

    def probe_map_type(self, map_type: int) -> bool:
        """Whether this process may create maps of that type on this kernel, found by creating one."""
        return bool(self.call("libbpf_probe_bpf_map_type", map_type, None))

    def probe_helper(self, prog_type: int, helper: int) -> bool:
        """Whether programs of that type may call that helper (enum bpf_func_id), found by loading one."""
        return bool(self.call("libbpf_probe_bpf_helper", prog_type, helper, None))

    def enable_stats(self) -> int:
        """Count run time and runs of all programs until the returned fd is closed (BPF_STATS_RUN_TIME)."""
        return int(self.call("bpf_enable_stats", 0))

    def prog_info(self, fd: int) -> ProgInfo:
        info = ProgInfo()
        self.call("bpf_obj_get_info_by_fd", fd, byref(info), byref(c_uint32(ctypes.sizeof(info))))
        return info

    def open_pinned(self, path: str) -> tuple[int, MapInfo]:
        """An fd of what is pinned there, and what kind of map it is (type 0: none). OSError if there is nothing."""
        fd = int(self.call("bpf_obj_get", os.fsencode(path)))
        info = MapInfo()
        if str(Path(f"/proc/self/fd/{fd}").readlink()) == "anon_inode:bpf-map":
            self.call("bpf_obj_get_info_by_fd", fd, byref(info), byref(c_uint32(ctypes.sizeof(info))))
        return fd, info

    def prog_load(
        self,
        prog_type: int,
        instructions: bytes,
        *,
        name: str = "",
        expected_attach_type: int = 0,
        attach_btf_id: int = 0,
        attach_btf_obj_fd: int = 0,
    ) -> int:
        """Load bare instructions (8 bytes each), GPL. An fd."""
        opts = ProgLoadOpts(
            sz=ctypes.sizeof(ProgLoadOpts),
            expected_attach_type=expected_attach_type,
            attach_btf_id=attach_btf_id,
            attach_btf_obj_fd=attach_btf_obj_fd,
        )
        count, rest = divmod(len(instructions), 8)
        if rest or not count:
            raise ValueError(f"{len(instructions)} bytes are no BPF instructions: 8 bytes each")
        return int(
            self.call("bpf_prog_load", prog_type, name.encode() or None, b"GPL", instructions, count, byref(opts))
        )

    def link_create(self, prog_fd: int, target_fd: int, attach_type: int) -> int:
        return int(self.call("bpf_link_create", prog_fd, target_fd, attach_type, None))

    def raw_tracepoint_open(self, name: str | None, prog_fd: int) -> int:
        return int(self.call("bpf_raw_tracepoint_open", None if name is None else name.encode(), prog_fd))


_libraries: dict[int, Libbpf] = {}
_libraries_lock = threading.Lock()


def open_library(path: str | None = None) -> Libbpf:
    """The system's libbpf, or the one at `path`: one Libbpf per library and process. MissingLibbpf.

    A process that opened one by path before gets that one for the system's too: the loader goes by soname.
    """
    library, path = dlopen_system() if path is None else dlopen_file(path)
    with _libraries_lock:  # libbpf_set_print is for the whole library: two of them would take it from each other
        handle = library._handle  # noqa: SLF001 - dlopen's; documented nowhere, there since ctypes is
        if handle not in _libraries:
            _libraries[handle] = Libbpf(library, path)
        return _libraries[handle]
