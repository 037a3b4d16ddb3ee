"""What pyproject.toml cannot say: make makes the BPF objects, cffi the ring walker, and one extension is plain C."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


class BuildWithKernelSide(build_py):
    """Makes `pytracecon/bpf/*.bpf.o` before the package's files are collected."""

    def run(self) -> None:
        subprocess.run(["make", "--silent", "-C", "bpf"], check=True)
        super().run()

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        """Of the objects that for this machine: a wheel is for one kind."""
        found: list[str] = super().find_data_files(package, src_dir)
        own = f"pytracecon-{platform.machine()}.bpf.o"
        return [path for path in found if not path.endswith(".bpf.o") or Path(path).name == own]


setup(
    cmdclass={"build_py": BuildWithKernelSide},
    cffi_modules=["pytracecon/_ring_build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "pytracecon._events",
            ["pytracecon/events.c"],
            depends=[f"pytracecon/{name}.h" for name in ("addresses", "maker", "fields")] + ["bpf/events.h"],
            include_dirs=["bpf", "pytracecon"],
            extra_compile_args=["-O2"],
            py_limited_api=True,
        )
    ],
    # Both compiled parts keep to the stable ABI: one wheel serves this and every later Python.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
