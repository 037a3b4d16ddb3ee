"""What pyproject.toml cannot say: the BPF objects are made by make, and the ring walker by cffi."""

from __future__ import annotations

import subprocess

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithKernelSide(build_py):
    """Makes `pytracecon/bpf/*.bpf.o` before the package's files are collected."""

    def run(self) -> None:
        subprocess.run(["make", "--silent", "-C", "bpf"], check=True)
        super().run()


setup(
    cmdclass={"build_py": BuildWithKernelSide},
    cffi_modules=["pytracecon/_ring_build.py:ffibuilder"],
    # The walker keeps to the stable ABI: one wheel serves this and every later Python.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
