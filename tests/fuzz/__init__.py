"""Foreign bytes for every decoder, a file a target. `python tests/fuzz` runs them with atheris, guided by coverage.

A target has `seeds()`, inputs as they really come, and `run(data)`, which raises nothing whatever the bytes are. Where
it is C, and an error of memory would be silent, it is compiled with sanitizers (`in_c`).
`tests/unit/test_fuzz.py` runs each of them for a moment.
"""

TARGETS = (
    "ring_records",
    "dns_messages",
    "dns_streams",
    "hellos",
    "quic_initials",
    "elf_files",
    "proc_texts",
    "cgroup_paths",
    "ipvs_lines",
    "engine_answers",
    "libc_names",
    "shown_texts",
    "event_lines",
    "options",
)
IN_C = "json_in_c"
"""A program: the C path to JSON lines, with sanitizers."""
