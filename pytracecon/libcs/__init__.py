"""The C libraries in which lookups happen: which files they are, and where in them the functions begin."""

from pytracecon.libcs.elf import NotALibc
from pytracecon.libcs.finder import Finder
from pytracecon.libcs.libc import FUNCTIONS, Libc

__all__ = ["FUNCTIONS", "Finder", "Libc", "NotALibc"]
