"""libbpf's C API as two tables: the structures that it takes, and the prototypes of its functions."""

from __future__ import annotations

import ctypes
import errno
from ctypes import POINTER, Structure, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

FLOOR = (1, 1)
ENOTSUPP = 524
LIBBPF_ERRNO_START = 4000


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


class MapInfo(Structure):
    """struct bpf_map_info of linux/bpf.h, its first part."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
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
    Prototype("bpf_object__find_program_by_name", c_void_p, (c_void_p, c_char_p), null),
    Prototype("bpf_object__next_map", c_void_p, (c_void_p, c_void_p), never),
    Prototype("bpf_program__name", c_char_p, (c_void_p,), never),
    Prototype("bpf_program__section_name", c_char_p, (c_void_p,), never),
    Prototype("bpf_program__autoload", c_bool, (c_void_p,), never),
    Prototype("bpf_program__set_autoload", c_int, (c_void_p, c_bool), negative),
    Prototype("bpf_program__set_expected_attach_type", c_int, (c_void_p, c_int), negative),
    Prototype("bpf_program__set_attach_target", c_int, (c_void_p, c_int, c_char_p), negative),
    Prototype("bpf_program__insn_cnt", c_size_t, (c_void_p,), never),
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
    Prototype("bpf_map__reuse_fd", c_int, (c_void_p, c_int), negative),
    Prototype("bpf_obj_get", c_int, (c_char_p,), negative),
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
