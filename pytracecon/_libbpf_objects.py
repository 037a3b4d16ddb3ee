"""A BPF object, its programs, and the links that keep them attached."""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack, suppress
from ctypes import byref, c_uint64
from typing import TYPE_CHECKING, Any, Self

from pytracecon._libbpf_api import IterAttachOpts, ProgInfo, UprobeMultiOpts, UprobeOpts
from pytracecon._libbpf_map import Map
from pytracecon.errors import TracerClosed
from pytracecon.refusals import explain, failed_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytracecon._libbpf import Libbpf


class Object:
    """A BPF object: what load() made in the kernel lives until close(), together with the links of its programs."""

    def __init__(self, lib: Libbpf, pointer: int, like: Object | None = None) -> None:
        """`like` is of the same image: then it is known what all is called."""
        self.lib = lib
        self._pointer: int | None = pointer
        self._links: list[Link] = []
        self.programs: dict[str, Program] = {}
        self.maps: dict[str, Map] = {}
        """By name; the sections' own maps by section name: ".rodata", ".data", ".bss"."""
        twins = iter(() if like is None else like.programs.values())
        for each in self._walk("bpf_object__next_program"):
            program = Program(self, each, next(twins, None))
            self.programs[program.name] = program
        maps = iter(() if like is None else like.maps.values())
        for each in self._walk("bpf_object__next_map"):
            bpf_map = Map(self, each, next(maps, None))
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
        # In place, a step at a time: another thread may attach as well.
        self._links.append(link)
        for other in [each for each in self._links if each.closed]:
            with suppress(ValueError):
                self._links.remove(other)
        return link

    def load(self) -> None:
        """Create the maps and load the programs whose autoload is on. A leaf of `errors` with `.program` if refused.

        After a failure the object cannot be loaded again: close it and open another.
        """
        try:
            self.lib.call("bpf_object__load", self.pointer)
        except OSError as error:
            said = self.lib.said
            program = failed_program(said)
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

    def __init__(self, owner: Object, pointer: int, like: Program | None = None) -> None:
        self._object = owner
        self._pointer = pointer
        self.name: str = self._call("bpf_program__name").decode() if like is None else like.name
        self.section: str = self._call("bpf_program__section_name").decode() if like is None else like.section

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
    def length(self) -> int:
        """Before loading: its instructions, without those of functions that it calls."""
        return int(self._call("bpf_program__insn_cnt"))

    def expect(self, attach_type: int) -> None:
        """Before loading: what it will be attached as, where the section's name does not say it to this libbpf."""
        self._call("bpf_program__set_expected_attach_type", attach_type)

    @property
    def fd(self) -> int:
        """Belongs to the Object: dup it to keep it. OSError while the program is not loaded."""
        return int(self._call("bpf_program__fd"))

    @property
    def loaded(self) -> bool:
        """Also while another thread loads the Object."""
        with suppress(OSError):
            return self.fd >= 0
        return False

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
