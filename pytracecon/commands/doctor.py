"""What of this can run here, what is missing, and what would help."""

from __future__ import annotations

import argparse
import inspect

from pytracecon.commands.console import Parser


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pytracecon doctor", description=inspect.cleandoc(__doc__ or ""), allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def run(options: argparse.Namespace) -> int:
    from pytracecon import doctor  # noqa: PLC0415 - not for --help

    return doctor.main(options)
