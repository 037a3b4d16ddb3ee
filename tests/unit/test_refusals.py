"""What libbpf and the verifier said of a refusal is found, and told in one line."""

from __future__ import annotations

import logging

from pytracecon import refusals
from pytracecon._libbpf import Message


def said(*texts: str) -> list[Message]:
    return [Message(logging.WARNING, text) for text in texts]


LOG = "".join(f"{number}: insn\n" for number in range(10)) + "R1 invalid mem access\nprocessed 10 insns\n"


def test_a_verifier_log_is_told_by_its_last_lines_on_one_line() -> None:
    assert refusals._last(LOG) == "(7 lines omitted) | 7: insn | 8: insn | 9: insn | R1 invalid mem access"
    assert refusals._last("one\n; \n\n2\n3\n4\n5\n") == "(1 line omitted) | 2 | 3 | 4 | 5"
    assert refusals._last("one\ntwo\nprocessed 2 insns (limit 1000000)\n") == "one | two"


def test_a_verifier_log_is_found_whole_in_what_libbpf_said() -> None:
    begin, end = "prog 'connects': -- BEGIN PROG LOAD LOG --\n", "-- END PROG LOAD LOG --"
    assert refusals._verifier_log(said("prog 'connects': BPF program load failed", f"{begin}{LOG}{end}", "more")) == LOG
    assert refusals._verifier_log(said(f"{begin}processed 0 insns (limit 1000000)\n{end}")) == ""
    assert refusals._verifier_log(said("prog 'connects': BPF program load failed")) == ""


def test_the_program_that_failed_is_the_last_that_libbpf_names() -> None:
    messages = said("prog 'first': a warning", "prog 'second': failed to load: -22", "failed to load object 'x'")
    assert refusals.failed_program(messages) == "second"
    assert refusals.failed_program(said("map 'ring': failed to create")) == ""
