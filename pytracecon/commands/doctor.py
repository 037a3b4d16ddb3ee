"""What of this can run here, what is missing, and what would help. All is attached
once, to see whether it works.

The exit status is 0 if TCP connections can be traced, 77 if a privilege is
missing for it, and else 69.
"""

from __future__ import annotations

import argparse
import inspect

from pytracecon.commands.console import Parser
from pytracecon.commands.options import add_tracer

_EXAMPLE = """\
examples:
  # pytracecon doctor
  kernel        Linux 6.18.44 x86_64
  BTF           /sys/kernel/btf/vmlinux, 5.52 MB
  ...
  NEED          FENTRY      KPROBE      TRACEPOINT  ITERATOR    TAKEN
  first syn     no [1]      no [2]      ok          -           tracepoint
  ...
  TCP connections can be traced.
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pytracecon doctor", description=inspect.cleandoc(__doc__ or ""), epilog=_EXAMPLE)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--privileges", action="store_true", help="also what each need takes of them; takes longer")
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from pytracecon import doctor  # noqa: PLC0415 - not for --help

    return doctor.main(options)
