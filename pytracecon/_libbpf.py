"""The system's libbpf through ctypes: its C API as a few owners, and no policy.

    Libbpf ── open_object() ─▶ Object ─┬─ programs[name] ─▶ Program ── attach…() ─▶ Link
                                       └─ maps[name] ─────▶ Map
    Libbpf ── vmlinux_btf(), parse_btf() ─▶ Btf

`open_library()` finds libbpf, and nothing is loaded before it is called. The table `PROTOTYPES` is all that is known of
the C side; its column `failed` is the one check between C and Python: a call that failed raises OSError. Loading and
attaching raise the leaves of `pytracecon.errors` instead (each an OSError too), with `.program` and `.errno` set.

An Object owns its programs, maps and links: used after its close() they raise TracerClosed and touch no freed memory.
libbpf's own messages go to the logger "pytracecon.libbpf", never to standard error.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import resource
import stat
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pytracecon.errors import (
    LockedDown,
    MissingBTF,
    MissingLibbpf,
    MissingPrivilege,
    PytraceconError,
    TracerClosed,
    UnsupportedKernel,
    VerifierRejected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FLOOR = (1, 1)
KERNEL_BTF = "/sys/kernel/btf/vmlinux"

logger = logging.getLogger("pytracecon.libbpf")
logger.addHandler(logging.NullHandler())  # or logging's handler of last resort would print warnings on standard error


# Structures, as of libbpf 1.1: `sz` tells libbpf how much of the structure its caller knows.


class OpenOpts(Structure):
    """struct bpf_object_open_opts"""

    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("_attach_prog_fd", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_void_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
    )


class UprobeOpts(Structure):
    """struct bpf_uprobe_opts"""

    _fields_ = (
        ("sz", c_size_t),
        ("ref_ctr_offset", c_size_t),
        ("bpf_cookie", c_uint64),
        ("retprobe", c_bool),
        ("func_name", c_char_p),
    )


class UprobeMultiOpts(Structure):
    """struct bpf_uprobe_multi_opts, libbpf 1.3"""

    _fields_ = (
        ("sz", c_size_t),
        ("syms", c_void_p),
        ("offsets", c_void_p),
        ("ref_ctr_offsets", c_void_p),
        ("cookies", c_void_p),
        ("cnt", c_size_t),
        ("retprobe", c_bool),
    )


class IterAttachOpts(Structure):
    """struct bpf_iter_attach_opts"""

    _fields_ = (("sz", c_size_t), ("link_info", c_char_p), ("link_info_len", c_uint32))


class ProgLoadOpts(Structure):
    """struct bpf_prog_load_opts"""

    _fields_ = (
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_void_p),
    )


class ProgInfo(Structure):
    """struct bpf_prog_info of linux/bpf.h; a kernel that knows less leaves the rest zero."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("_gpl_compatible", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
    )


# The C API.


def negative(result: int) -> int:
    """An int function of libbpf 1.x fails with a negative errno."""
    return -result if result < 0 else 0


def null(result: int | None) -> int:
    """A function that returns something new fails with NULL and errno."""
    return 0 if result else ctypes.get_errno() or errno.EINVAL


def never(_result: object) -> int:
    return 0


class Prototype(NamedTuple):
    """One C function; one with `since` is newer than the floor, and may be absent."""

    name: str
    restype: Any
    argtypes: tuple[Any, ...]
    failed: Callable[[Any], int]
    since: tuple[int, int] = FLOOR


PRINT_FUNCTION = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)

PROTOTYPES = (
    Prototype("libbpf_major_version", c_uint32, (), never),
    Prototype("libbpf_minor_version", c_uint32, (), never),
    Prototype("libbpf_set_print", c_void_p, (PRINT_FUNCTION,), never),
    Prototype("libbpf_strerror", c_int, (c_int, c_char_p, c_size_t), never),
    Prototype("libbpf_num_possible_cpus", c_int, (), negative),
    Prototype("libbpf_probe_bpf_prog_type", c_int, (c_int, c_void_p), negative),
    Prototype("libbpf_probe_bpf_map_type", c_int, (c_int, c_void_p), negative),
    Prototype("libbpf_probe_bpf_helper", c_int, (c_int, c_int, c_void_p), negative),
    Prototype("bpf_object__open_mem", c_void_p, (c_char_p, c_size_t, POINTER(OpenOpts)), null),
    Prototype("bpf_object__load", c_int, (c_void_p,), negative),
    Prototype("bpf_object__close", None, (c_void_p,), never),
    Prototype("bpf_object__next_program", c_void_p, (c_void_p, c_void_p), never),
    Prototype("bpf_object__next_map", c_void_p, (c_void_p, c_void_p), never),
    Prototype("bpf_program__name", c_char_p, (c_void_p,), never),
    Prototype("bpf_program__section_name", c_char_p, (c_void_p,), never),
    Prototype("bpf_program__autoload", c_bool, (c_void_p,), never),
    Prototype("bpf_program__set_autoload", c_int, (c_void_p, c_bool), negative),
    Prototype("bpf_program__fd", c_int, (c_void_p,), negative),
    Prototype("bpf_program__attach", c_void_p, (c_void_p,), null),
    Prototype("bpf_program__attach_kprobe", c_void_p, (c_void_p, c_bool, c_char_p), null),
    Prototype("bpf_program__attach_raw_tracepoint", c_void_p, (c_void_p, c_char_p), null),
    Prototype("bpf_program__attach_trace", c_void_p, (c_void_p,), null),
    Prototype("bpf_program__attach_perf_event", c_void_p, (c_void_p, c_int), null),
    Prototype("bpf_program__attach_cgroup", c_void_p, (c_void_p, c_int), null),
    Prototype("bpf_program__attach_iter", c_void_p, (c_void_p, POINTER(IterAttachOpts)), null),
    Prototype(
        "bpf_program__attach_uprobe_opts", c_void_p, (c_void_p, c_int, c_char_p, c_size_t, POINTER(UprobeOpts)), null
    ),
    Prototype(
        "bpf_program__attach_uprobe_multi",
        c_void_p,
        (c_void_p, c_int, c_char_p, c_char_p, POINTER(UprobeMultiOpts)),
        null,
        since=(1, 3),
    ),
    Prototype("bpf_link__fd", c_int, (c_void_p,), negative),
    Prototype("bpf_link__disconnect", None, (c_void_p,), never),
    Prototype("bpf_link__destroy", c_int, (c_void_p,), negative),
    Prototype("bpf_map__name", c_char_p, (c_void_p,), never),
    Prototype("bpf_map__type", c_int, (c_void_p,), never),
    Prototype("bpf_map__fd", c_int, (c_void_p,), never),
    Prototype("bpf_map__key_size", c_uint32, (c_void_p,), never),
    Prototype("bpf_map__value_size", c_uint32, (c_void_p,), never),
    Prototype("bpf_map__max_entries", c_uint32, (c_void_p,), never),
    Prototype("bpf_map__set_max_entries", c_int, (c_void_p, c_uint32), negative),
    Prototype("bpf_map__map_flags", c_uint32, (c_void_p,), never),
    Prototype("bpf_map__set_map_flags", c_int, (c_void_p, c_uint32), negative),
    Prototype("bpf_map__initial_value", c_void_p, (c_void_p, POINTER(c_size_t)), null),
    Prototype("bpf_map__set_initial_value", c_int, (c_void_p, c_char_p, c_size_t), negative),
    Prototype("bpf_map_update_elem", c_int, (c_int, c_char_p, c_char_p, c_uint64), negative),
    Prototype("bpf_map_lookup_elem", c_int, (c_int, c_char_p, c_char_p), negative),
    Prototype("bpf_map_delete_elem", c_int, (c_int, c_char_p), negative),
    Prototype("bpf_map_get_next_key", c_int, (c_int, c_char_p, c_char_p), negative),
    Prototype("bpf_iter_create", c_int, (c_int,), negative),
    Prototype("bpf_obj_get_info_by_fd", c_int, (c_int, c_void_p, POINTER(c_uint32)), negative),
    Prototype("bpf_enable_stats", c_int, (c_int,), negative),
    Prototype("bpf_prog_load", c_int, (c_int, c_char_p, c_char_p, c_char_p, c_size_t, POINTER(ProgLoadOpts)), negative),
    Prototype("bpf_link_create", c_int, (c_int, c_int, c_int, c_void_p), negative),
    Prototype("bpf_raw_tracepoint_open", c_int, (c_char_p, c_int), negative),
    Prototype("btf__load_vmlinux_btf", c_void_p, (), null),
    Prototype("btf__parse", c_void_p, (c_char_p, c_void_p), null),
    Prototype("btf__find_by_name_kind", c_int, (c_void_p, c_char_p, c_uint32), negative),
    Prototype("btf__raw_data", c_void_p, (c_void_p, POINTER(c_uint32)), null),
    Prototype("btf__free", None, (c_void_p,), never),
)


class Message(NamedTuple):
    """Something that libbpf said; `level` is one of logging's."""

    level: int
    text: str


class _Heard(threading.local):
    """What libbpf said during this thread's last call, and an exception (Ctrl-C) that came up while it was noted."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.raised: BaseException | None = None
        self.trying = False


_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # in the order of enum libbpf_print_level
_DEBUG = 2  # hundreds of messages for each object: not even formatted unless wanted
_KEPT_LENGTH = 4096  # of a message in Libbpf.messages: a verifier log can have megabytes


class Libbpf:
    """One loaded libbpf, for good: libraries are never unloaded. From `open_library()`."""

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self.path = path
        self.version: tuple[int, int] = (library.libbpf_major_version(), library.libbpf_minor_version())
        self.messages: deque[Message] = deque(maxlen=50)
        """The last that libbpf said, in whatever thread."""
        self._heard = _Heard()
        self._libc = ctypes.CDLL(None)
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
        self._print = PRINT_FUNCTION(self._note)  # kept: libbpf calls it from now on
        self.call("libbpf_set_print", self._print)

    def has(self, name: str) -> bool:
        """Whether this libbpf has a function that is newer than the floor."""
        return name in self._functions

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the table. Every call to libbpf goes through here; OSError if it failed."""
        heard = self._heard
        heard.messages = []
        if name not in self._functions:
            since = next(prototype.since for prototype in PROTOTYPES if prototype.name == name)
            raise OSError(errno.ENOSYS, f"{name} needs libbpf {since[0]}.{since[1]}, this is {self.version_text}")
        function, failed = self._functions[name]
        ctypes.set_errno(0)  # or a NULL without errno would be blamed on an older failure
        result = function(*args)
        code = failed(result)
        if heard.raised is not None:
            raised, heard.raised = heard.raised, None
            raise raised
        for message in heard.messages:
            logger.log(logging.DEBUG if heard.trying else message.level, "%s", message.text)
        if code:
            raise OSError(code, f"{name}: {self.strerror(code)}")
        return result

    @contextmanager
    def trying(self) -> Iterator[None]:
        """A failure is an answer here, and its exception says all: libbpf's warnings are logged as details."""
        before, self._heard.trying = self._heard.trying, True
        try:
            yield
        finally:
            self._heard.trying = before

    def _note(self, level: int, text: int | None, args: int | None) -> int:
        """Take what libbpf prints: only note it, since an exception in a callback has nowhere to go; call() logs it.

        A va_list parameter is one pointer to the ABI's state, on x86-64 (an array decays) as on arm64 (a struct above
        16 bytes goes by reference), so it can be passed on as it came, once.
        """
        try:
            if level == _DEBUG and not logger.isEnabledFor(logging.DEBUG):
                return 0
            line = c_char_p()
            if self._libc.vasprintf(byref(line), c_void_p(text), c_void_p(args)) < 0:
                return 0
            said = (line.value or b"").decode(errors="replace").removeprefix("libbpf: ").rstrip("\n")
            self._libc.free(line)
            self._heard.messages.append(Message(_LEVELS[level], said))
            self.messages.append(Message(_LEVELS[level], said[:_KEPT_LENGTH]))
        except BaseException as error:  # noqa: BLE001 - call() raises it
            self._heard.raised = error
        return 0

    @property
    def said(self) -> tuple[Message, ...]:
        """What libbpf said during the last call in this thread."""
        return tuple(self._heard.messages)

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
        self, image: bytes, *, name: str = "pytracecon", btf: str | None = None, log_level: int = 0
    ) -> Object:
        """Open (not load) the BPF object in `image`; `btf` replaces the kernel's BTF for relocation. MissingBTF."""
        if btf is not None:
            self.parse_btf(btf).close()
        opts = OpenOpts(
            sz=ctypes.sizeof(OpenOpts),
            object_name=name.encode(),
            btf_custom_path=None if btf is None else os.fsencode(btf),
            kernel_log_level=log_level,
        )
        # libbpf is done with `image` when this returns (it calls bpf_object__elf_finish), and copies the paths.
        return Object(self, self.call("bpf_object__open_mem", image, len(image), byref(opts)))

    def vmlinux_btf(self) -> Btf:
        """The running kernel's BTF. MissingBTF if it has none."""
        try:
            return Btf(self, self.call("btf__load_vmlinux_btf"))
        except OSError as error:
            raise _caused_by(MissingBTF(_NO_KERNEL_BTF), error) from error

    def parse_btf(self, path: str) -> Btf:
        """The BTF in a file, raw or in an ELF section. MissingBTF if there is none."""
        try:
            _require_regular(path)
            return Btf(self, self.call("btf__parse", os.fsencode(path), None))
        except OSError as error:
            text = (
                f"{path} is no BTF file ({_cause(error)}): give one of this very kernel, such as a copy of its "
                f"{KERNEL_BTF}"
            )
            raise _caused_by(MissingBTF(text), error) from error

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


class Object:
    """A BPF object: what load() made in the kernel lives until close(), together with the links of its programs."""

    def __init__(self, lib: Libbpf, pointer: int) -> None:
        self.lib = lib
        self._pointer: int | None = pointer
        self._links: list[Link] = []
        self.programs: dict[str, Program] = {}
        self.maps: dict[str, Map] = {}
        """By name; the sections' own maps by section name: ".rodata", ".data", ".bss"."""
        for each in self._walk("bpf_object__next_program"):
            program = Program(self, each)
            self.programs[program.name] = program
        for each in self._walk("bpf_object__next_map"):
            bpf_map = Map(self, each)
            self.maps[bpf_map.name] = bpf_map

    def _walk(self, next_one: str) -> Iterator[int]:
        pointer = self.lib.call(next_one, self.pointer, None)
        while pointer:
            yield pointer
            pointer = self.lib.call(next_one, self.pointer, pointer)

    @property
    def pointer(self) -> int:
        if self._pointer is None:
            raise TracerClosed("the BPF object is closed and its programs and maps are gone: open another")
        return self._pointer

    def own(self, link: Link) -> Link:
        """Close it with the object, unless it was closed before."""
        self._links = [other for other in self._links if not other.closed]
        self._links.append(link)
        return link

    def load(self) -> None:
        """Create the maps and load the programs whose autoload is on. A leaf of `errors` with `.program` if refused.

        After a failure the object cannot be loaded again: close it and open another.
        """
        try:
            self.lib.call("bpf_object__load", self.pointer)
        except OSError as error:
            said = self.lib.said
            program = _failed_program(said)
            section = self.programs[program].section if program in self.programs else ""
            doing = f"loading BPF program {program}" if program else "loading the BPF object"
            raise explain(self.lib, error, doing, program=program, section=section, said=said) from error

    def close(self) -> None:
        """Detach and free everything, whatever fails on the way. Again: nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is None:
            return
        with ExitStack() as last_to_first:
            last_to_first.callback(self.lib.call, "bpf_object__close", pointer)
            for link in self._links:
                last_to_first.callback(link.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Program:
    """A program of an Object, which keeps it."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._object = owner
        self._pointer = pointer
        self.name: str = self._call("bpf_program__name").decode()
        self.section: str = self._call("bpf_program__section_name").decode()

    def _call(self, function: str, *args: Any) -> Any:
        _ = self._object.pointer  # raises when closed
        return self._object.lib.call(function, self._pointer, *args)

    @property
    def autoload(self) -> bool:
        return bool(self._call("bpf_program__autoload"))

    @autoload.setter
    def autoload(self, value: bool) -> None:
        self._call("bpf_program__set_autoload", value)

    @property
    def fd(self) -> int:
        """Belongs to the Object: dup it to keep it. OSError while the program is not loaded."""
        return int(self._call("bpf_program__fd"))

    def info(self) -> ProgInfo:
        return self._object.lib.prog_info(self.fd)

    def _attach(self, function: str, *args: Any) -> Link:
        try:
            return self._object.own(Link(self._object.lib, self._call(function, *args)))
        except OSError as error:
            lib = self._object.lib
            doing = f"attaching BPF program {self.name} ({self.section})"
            raise explain(lib, error, doing, program=self.name, section=self.section, said=lib.said) from error

    def attach(self) -> Link:
        """Attach where the section name says."""
        return self._attach("bpf_program__attach")

    def attach_trace(self) -> Link:
        """fentry, fexit, fmod_ret, tp_btf: where the section name says."""
        return self._attach("bpf_program__attach_trace")

    def attach_raw_tracepoint(self, name: str) -> Link:
        return self._attach("bpf_program__attach_raw_tracepoint", name.encode())

    def attach_kprobe(self, function: str, *, retprobe: bool = False) -> Link:
        return self._attach("bpf_program__attach_kprobe", retprobe, function.encode())

    def attach_perf_event(self, perf_event_fd: int) -> Link:
        """The link takes the fd over, and closes it."""
        return self._attach("bpf_program__attach_perf_event", perf_event_fd)

    def attach_cgroup(self, cgroup_fd: int) -> Link:
        """The fd may be closed afterwards."""
        return self._attach("bpf_program__attach_cgroup", cgroup_fd)

    def attach_iter(self, link_info: bytes | None = None) -> Link:
        """Read it through the fd that `Link.iter_create()` returns. `link_info` is a union bpf_iter_link_info."""
        opts = IterAttachOpts(
            sz=ctypes.sizeof(IterAttachOpts), link_info=link_info, link_info_len=len(link_info) if link_info else 0
        )
        return self._attach("bpf_program__attach_iter", byref(opts))

    def attach_uprobe(
        self,
        path: str,
        *,
        function: str | None = None,
        offset: int = 0,
        pid: int = -1,
        retprobe: bool = False,
        cookie: int = 0,
    ) -> Link:
        """At `offset` in the file, or in `function` of it. `pid` -1 is every process, 0 this one."""
        opts = UprobeOpts(
            sz=ctypes.sizeof(UprobeOpts),
            bpf_cookie=cookie,
            retprobe=retprobe,
            func_name=None if function is None else function.encode(),
        )
        return self._attach("bpf_program__attach_uprobe_opts", pid, os.fsencode(path), offset, byref(opts))

    def attach_uprobe_multi(
        self,
        path: str,
        offsets: Sequence[int],
        *,
        cookies: Sequence[int] = (),
        pid: int = -1,
        retprobe: bool = False,
    ) -> Link:
        """One link for many places of a file: libbpf 1.3 and Linux 6.6, UnsupportedKernel below.

        By offset only: libbpf (as of 1.7) finds no name in a library without .symtab, such as any stripped libc, since
        elf_resolve_syms_offsets() returns the ENOENT of its second table though the first had them all.
        """
        if not offsets or len(cookies) not in (0, len(offsets)):
            raise ValueError("at least one offset, and as many cookies as offsets, or none")
        places = (ctypes.c_ulong * len(offsets))(*offsets)
        tags = (c_uint64 * len(cookies))(*cookies)
        opts = UprobeMultiOpts(
            sz=ctypes.sizeof(UprobeMultiOpts),
            offsets=ctypes.addressof(places),
            cookies=ctypes.addressof(tags) if cookies else None,
            cnt=len(offsets),
            retprobe=retprobe,
        )
        return self._attach("bpf_program__attach_uprobe_multi", pid, os.fsencode(path), None, byref(opts))


class Link:
    """What keeps a program attached, until close(). The Object closes it at the latest."""

    def __init__(self, lib: Libbpf, pointer: int) -> None:
        self._lib = lib
        self._pointer: int | None = pointer
        self._pid = os.getpid()

    @property
    def fd(self) -> int:
        return int(self._lib.call("bpf_link__fd", self._open_pointer()))

    def iter_create(self) -> int:
        """An fd whose reading runs an iterator program once over everything; the caller's to close."""
        return int(self._lib.call("bpf_iter_create", self.fd))

    def _open_pointer(self) -> int:
        if self._pointer is None:
            raise TracerClosed("the BPF link is closed: attach again")
        return self._pointer

    def close(self) -> None:
        """Detach. Again: nothing. In a child after fork() the parent's attachment stays."""
        pointer, self._pointer = self._pointer, None  # no call in between: safe against a signal handler's close()
        if pointer is None:
            return
        if os.getpid() != self._pid:
            # Detaching a perf event disables it, and the event is the parent's too: give up this process's fd only.
            os.close(self._lib.call("bpf_link__fd", pointer))
            self._lib.call("bpf_link__disconnect", pointer)
        self._lib.call("bpf_link__destroy", pointer)

    @property
    def closed(self) -> bool:
        return self._pointer is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PER_CPU_MAPS = frozenset({5, 6, 10, 21})  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH, _PERCPU_CGROUP_…


class Map:
    """A map of an Object, which keeps it. Keys and values are bytes, as the kernel has them."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._object = owner
        self._pointer = pointer
        name: str = self._call("bpf_map__name").decode()
        # libbpf calls a section's map "pytracecon.rodata", cut to 15 characters; no map of C's has a dot in its name.
        self.name = name if name.startswith(".") or "." not in name else "." + name.rpartition(".")[2]
        self.type: int = self._call("bpf_map__type")
        self.key_size: int = self._call("bpf_map__key_size")

    def _call(self, function: str, *args: Any) -> Any:
        _ = self._object.pointer  # raises when closed
        return self._object.lib.call(function, self._pointer, *args)

    @property
    def fd(self) -> int:
        """Belongs to the Object: dup it to keep it. OSError before load()."""
        fd = int(self._call("bpf_map__fd"))
        if fd < 0:  # libbpf's -1 is no errno here
            raise OSError(errno.EBADF, f"map {self.name} is not created yet: load the object first")
        return fd

    @property
    def value_size(self) -> int:
        """Bytes of one value; in a per-CPU map, of one CPU's."""
        return int(self._call("bpf_map__value_size"))

    @property
    def max_entries(self) -> int:
        return int(self._call("bpf_map__max_entries"))

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        self._call("bpf_map__set_max_entries", value)

    @property
    def flags(self) -> int:
        return int(self._call("bpf_map__map_flags"))

    @flags.setter
    def flags(self, value: int) -> None:
        self._call("bpf_map__set_map_flags", value)

    @property
    def initial_value(self) -> bytes:
        """A copy of what a section's map (".rodata", ".data", ".bss") starts with."""
        size = c_size_t()
        pointer = self._call("bpf_map__initial_value", byref(size))
        return ctypes.string_at(pointer, size.value)

    @initial_value.setter
    def initial_value(self, value: bytes | bytearray) -> None:
        """Before load() only, all of it."""
        self._call("bpf_map__set_initial_value", bytes(value), len(value))

    @property
    def _value_space(self) -> int:
        if self.type not in _PER_CPU_MAPS:
            return self.value_size
        return _round_up_8(self.value_size) * self._object.lib.num_possible_cpus()

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name} has keys of {self.key_size} bytes, this one has {len(key)}")
        return key

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set it; `flags`: BPF_ANY 0, BPF_NOEXIST 1, BPF_EXIST 2. A per-CPU map takes all CPUs' values in a row."""
        if len(value) != self._value_space:
            raise ValueError(f"map {self.name} has values of {self._value_space} bytes, this one has {len(value)}")
        self._object.lib.call("bpf_map_update_elem", self.fd, self._key(key), value, flags)

    def lookup(self, key: bytes) -> bytes | None:
        """None if absent. From a per-CPU map, all CPUs' values in a row: see `lookup_per_cpu()`."""
        value = ctypes.create_string_buffer(self._value_space)
        try:
            self._object.lib.call("bpf_map_lookup_elem", self.fd, self._key(key), value)
        except FileNotFoundError:
            return None
        return value.raw

    def lookup_per_cpu(self, key: bytes) -> list[bytes]:
        """One value for each possible CPU of a per-CPU map; [] if absent."""
        value, size = self.lookup(key) or b"", self.value_size
        return [value[at : at + size] for at in range(0, len(value), _round_up_8(size))]

    def delete(self, key: bytes) -> bool:
        """False if it was absent."""
        try:
            self._object.lib.call("bpf_map_delete_elem", self.fd, self._key(key))
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys, in no order. While others delete, one may come twice; never more than `max_entries` in all."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        for _ in range(self.max_entries):
            try:
                self._object.lib.call("bpf_map_get_next_key", self.fd, key, following)
            except FileNotFoundError:
                return
            key = following.raw
            yield key


class Btf:
    """Type information of a kernel, until close()."""

    def __init__(self, lib: Libbpf, pointer: int) -> None:
        self._lib = lib
        self._pointer: int | None = pointer

    def _open_pointer(self) -> int:
        if self._pointer is None:
            raise TracerClosed("the BTF is closed: load it again")
        return self._pointer

    def find(self, name: str, kind: int) -> int | None:
        """The id of the type of that name and kind (BTF_KIND_STRUCT 4, BTF_KIND_FUNC 12…), None if there is none."""
        try:
            return int(self._lib.call("btf__find_by_name_kind", self._open_pointer(), name.encode(), kind))
        except FileNotFoundError:
            return None

    def raw(self) -> bytes:
        """All of it, in the format of the .BTF section."""
        size = c_uint32()
        pointer = self._lib.call("btf__raw_data", self._open_pointer(), byref(size))
        return ctypes.string_at(pointer, size.value)

    def close(self) -> None:
        """Free it. Again: nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._lib.call("btf__free", pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _round_up_8(size: int) -> int:
    return (size + 7) & ~7


# Finding libbpf.

_INSTALL = "install libbpf 1.1 or newer (Debian, Ubuntu: apt install libbpf1; Fedora: dnf install libbpf)"
_libraries: dict[int, Libbpf] = {}
_libraries_lock = threading.Lock()


def open_library(path: str | None = None) -> Libbpf:
    """The system's libbpf, or the one at `path`: one Libbpf per library and process. MissingLibbpf.

    A process that opened one by path before gets that one for the system's too: the loader goes by soname.
    """
    library, path = _dlopen_system() if path is None else _dlopen_file(path)
    with _libraries_lock:  # libbpf_set_print is for the whole library: two of them would take it from each other
        handle = library._handle  # noqa: SLF001 - dlopen's; documented nowhere, there since ctypes is
        if handle not in _libraries:
            _libraries[handle] = Libbpf(library, path)
        return _libraries[handle]


def _dlopen_system() -> tuple[ctypes.CDLL, str]:
    # By soname, never by ctypes.util.find_library: that runs ldconfig, gcc or ld to find out.
    try:
        return _checked(ctypes.CDLL("libbpf.so.1", use_errno=True), "libbpf.so.1"), "libbpf.so.1"
    except OSError as error:
        reason = error
    try:
        _checked(ctypes.CDLL("libbpf.so.0", use_errno=True), "libbpf.so.0")
    except OSError:
        raise MissingLibbpf(f"libbpf is missing ({reason}): {_INSTALL}") from reason
    raise AssertionError("libbpf.so.0 passed for libbpf 1")


def _dlopen_file(path: str) -> tuple[ctypes.CDLL, str]:
    try:
        _require_regular(path)
        # Absolute, or dlopen would look for a bare name in the system's folders.
        return _checked(ctypes.CDLL(str(Path(path).resolve()), use_errno=True), path), path
    except OSError as error:
        text = f"{path} cannot be used as libbpf ({_cause(error)}): give the path of a libbpf.so.1, or {_INSTALL}"
        raise MissingLibbpf(text) from error


def _checked(library: ctypes.CDLL, path: str) -> ctypes.CDLL:
    if not hasattr(library, "bpf_object__load"):
        raise MissingLibbpf(f"{path} is a shared library but no libbpf: give the path of a libbpf.so.1, or {_INSTALL}")
    if not hasattr(library, "libbpf_major_version"):  # since 0.6
        raise MissingLibbpf(f"{path} is libbpf 0.x, 1.1 is needed: {_INSTALL}")
    version = (library.libbpf_major_version(), library.libbpf_minor_version())
    if version < FLOOR:
        raise MissingLibbpf(f"{path} is libbpf {version[0]}.{version[1]}, 1.1 is needed: {_INSTALL}")
    return library


def _require_regular(path: str) -> None:
    """OSError unless it is a regular file: a FIFO would block whoever opens it."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).rpartition(": ")[2]


# What a failure means.

ENOTSUPP = 524
LIBBPF_ERRNO_START = 4000
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
_NO_KERNEL_BTF = (
    f"the kernel has no BTF ({KERNEL_BTF} is missing): run a kernel built with CONFIG_DEBUG_INFO_BTF, "
    "or give a BTF file of this very kernel (--btf FILE)"
)
_LOG_LINES = 4  # of a verifier log in an error's text


def capabilities() -> tuple[frozenset[str], frozenset[str]]:
    """Of the capabilities that BPF asks for: those in effect in this process, and those that this kernel has."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    effective = int(status["CapEff"], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    held = frozenset(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)
    return held, frozenset(name for name, bit in CAPABILITIES.items() if bit <= last)


def lockdown() -> str | None:
    """The kernel's lockdown: "none", "integrity", "confidentiality"; None if unknown (securityfs not mounted)."""
    try:
        found = re.search(r"\[(\w+)\]", Path("/sys/kernel/security/lockdown").read_text())
    except OSError:
        return None
    return found[1] if found else None


def missing_capabilities(section: str = "", *, attaching: bool = False) -> list[str]:
    """What this process lacks to load (or attach) a program of that section, by name; [] if it lacks nothing."""
    held, known = capabilities()
    if "CAP_SYS_ADMIN" in held:  # stands for all of them, but for CAP_SYS_RESOURCE
        return []
    if "CAP_BPF" not in known:
        return ["CAP_SYS_ADMIN"]
    wanted = ["CAP_BPF", "CAP_PERFMON"]
    if section.startswith(_NETWORK_SECTIONS):
        wanted.append("CAP_NET_ADMIN")
    if attaching and section.startswith(_PERF_SECTIONS):
        wanted.append("CAP_SYS_ADMIN")
    return [name for name in wanted if name not in held]


def explain(
    lib: Libbpf,
    error: OSError,
    doing: str,
    *,
    program: str = "",
    section: str = "",
    said: Sequence[Message] = (),
) -> PytraceconError:
    """The leaf of `errors` that a failed load or attach means; `said` is what libbpf said meanwhile."""
    code = error.errno or 0
    denied = code in (errno.EPERM, errno.EACCES)
    locked = lockdown()
    log = _verifier_log(said)
    # Linux ff40e51043af (v5.13) takes the helpers away under lockdown; before that they fail when they run.
    reads_forbidden = re.search(r"(unknown func|cannot use helper) bpf_probe_read", log) is not None
    attaching = doing.startswith("attaching")
    found: PytraceconError
    if denied and (missing := missing_capabilities(section, attaching=attaching)):
        found = MissingPrivilege(f"{doing} needs {' and '.join(missing)}: {_HOW_TO_GET_CAPABILITIES}")
    elif denied and _in_user_namespace():
        found = MissingPrivilege(f"{doing} is not allowed in a user namespace: run as root outside of the container")
    elif locked == "confidentiality" and (denied or reads_forbidden):
        found = LockedDown(f"{doing} is forbidden, the kernel is locked down (confidentiality): {_HOW_TO_UNLOCK}")
    elif locked is None and reads_forbidden:
        found = LockedDown(
            f"{doing} is forbidden, the kernel lets no program read its memory, which means lockdown "
            f"(securityfs is not mounted to tell): {_HOW_TO_UNLOCK}"
        )
    elif log:
        found = VerifierRejected(f"{doing} failed, the kernel's verifier refused: {_last(log)}", log=log)
    elif any(sign in message.text for sign in _BTF_SIGNS for message in said) and not Path(KERNEL_BTF).exists():
        found = MissingBTF(_NO_KERNEL_BTF)
    elif code == errno.EPERM and _memlock_is_short(lib):
        found = MissingPrivilege(
            f"{doing} hit the limit of locked memory and needs CAP_SYS_RESOURCE to raise it: "
            f"{_HOW_TO_GET_CAPABILITIES}, or `ulimit -l unlimited` first"
        )
    else:
        text = f"{doing} failed: {_first_reason(said) or error.strerror}"
        if code == errno.EPERM and locked is None:
            text += "; whether the kernel is locked down is unknown (securityfs is not mounted)"
        found = UnsupportedKernel(text)
    found.program = program
    return _caused_by(found, error)


_HOW_TO_GET_CAPABILITIES = "run as root (sudo), or grant it (setcap, AmbientCapabilities=)"
_HOW_TO_UNLOCK = "boot with lockdown=integrity or none"
_NETWORK_SECTIONS = ("cgroup", "socket", "sockops", "sk_", "tc", "xdp", "classifier", "action", "lwt", "flow_dissector")
_PERF_SECTIONS = ("kprobe", "kretprobe", "uprobe", "uretprobe", "tracepoint", "tp/", "perf_event", "usdt")
_BTF_SIGNS = ("failed to find valid kernel BTF", "Error loading vmlinux BTF", "failed to get target BTF")


def _caused_by(found: PytraceconError, error: OSError) -> PytraceconError:
    if isinstance(found, OSError):
        found.errno = error.errno
    return found


def _failed_program(said: Sequence[Message]) -> str:
    """The program that libbpf gave up at: it names it in its last warnings."""
    for message in reversed(said):
        if message.level == logging.WARNING and (match := re.match(r"prog '([^']+)': ", message.text)):
            return match[1]
    return ""


def _verifier_log(said: Sequence[Message]) -> str:
    """What the verifier printed; "" if that is nothing but its statistics."""
    for message in reversed(said):
        match = re.search(r"-- BEGIN PROG LOAD LOG --\n(.*)-- END PROG LOAD LOG --", message.text, re.DOTALL)
        if match:
            return match[1] if _complaints(match[1]) else ""
    return ""


def _complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.strip(" ;") and not line.startswith("processed ")]


def _last(log: str) -> str:
    lines = _complaints(log)
    omitted = len(lines) - _LOG_LINES
    first = [f"({omitted} line{'s' * (omitted > 1)} omitted)"] if omitted > 0 else []
    return " | ".join(first + lines[-_LOG_LINES:])


def _first_reason(said: Sequence[Message]) -> str:
    """The first warning: the later ones say what failed because of it."""
    return next((" ".join(each.text.split()) for each in said if each.level == logging.WARNING), "")


def _in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def memlock_charged(lib: Libbpf) -> bool:
    """Whether BPF memory counts against RLIMIT_MEMLOCK. Only a process that may load programs can find out.

    Linux 5.11 charges the cgroup instead. libbpf finds that out by a helper that came with the same release.
    """
    return not lib.probe_helper(1, _KTIME_GET_COARSE_NS)


def _memlock_is_short(lib: Libbpf) -> bool:
    """Whether BPF memory counts against RLIMIT_MEMLOCK, and it is limited, and this process may not raise it."""
    limited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY
    return limited and "CAP_SYS_RESOURCE" not in capabilities()[0] and memlock_charged(lib)


_KTIME_GET_COARSE_NS = 160  # BPF_FUNC_ktime_get_coarse_ns; 1 is BPF_PROG_TYPE_SOCKET_FILTER
