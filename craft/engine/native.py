"""Native pieces: C++ that the compiler's front end wrote, built by the machine's own C++ compiler and called from Python.

A piece is one shared library with one function, list of tensors in, list of tensors out. Building goes on in processes of
its own while the next piece is being written. The headers of torch are compiled once, ahead and beside everything else:
they take longer than the pieces.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from craft.types import Tensor

__all__ = ["BuildError", "Builder", "load"]

_HEADER = """\
#pragma once
#include <Python.h>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
#include <torch/csrc/inductor/aoti_runtime/scalar_to_tensor.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/cpp_prefix.h>
using namespace torch::aot_inductor;
"""
"""The part of torch's own header for generated code that needs neither pybind11 nor its C++ interface."""

_ENTRY = """
extern "C" __attribute__((visibility("default"))) PyObject* craft_run(PyObject* given) {
  if (PyList_GET_SIZE(given) != INPUTS) {
    PyErr_Format(PyExc_ValueError, "got %zd tensors; expected INPUTS", PyList_GET_SIZE(given));
    return nullptr;
  }
  std::vector<AtenTensorHandle> inputs(INPUTS + 1);
  for (size_t i = 0; i < INPUTS; i++)
    inputs[i] = reinterpret_cast<AtenTensorHandle>(PyCapsule_GetPointer(PyList_GET_ITEM(given, i), nullptr));
  std::vector<AtenTensorHandle> outputs(OUTPUTS + 1);
  std::string problem;
  Py_BEGIN_ALLOW_THREADS
  try { inductor_entry_impl(inputs.data(), outputs.data()); }
  catch (const std::exception& error) { problem = error.what(); if (problem.empty()) problem = "unknown error"; }
  catch (...) { problem = "unknown error"; }
  Py_END_ALLOW_THREADS
  if (!problem.empty()) { PyErr_SetString(PyExc_RuntimeError, problem.c_str()); return nullptr; }
  PyObject* made = PyList_New(OUTPUTS);
  for (size_t i = 0; i < OUTPUTS; i++) PyList_SET_ITEM(made, i, PyCapsule_New(outputs[i], nullptr, nullptr));
  return made;
}
"""


_BRIEF = {"max-inline-insns-auto": 15, "early-inlining-insns": 6, "inline-min-speedup": 30}
"""What GCC inlines at -O2. Of long pieces of small kernels -O3 makes twice the work for the compiler and no faster code."""
_OLD = 30 * 86400.0
"""Seconds after which compiled headers of another torch or compiler are thrown away."""


class BuildError(RuntimeError):
    """The C++ compiler refused what the front end wrote."""


class Builder:
    """Builds pieces into a directory, beside whatever the caller goes on with; leaving it ends what is still under way."""

    def __init__(self, directory: Path, headers: Path) -> None:
        self.directory = directory
        self.flags = _flags()
        self.compiler = _Compiler()
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1))
        self.header = self.pool.submit(_compiled_header, headers, self.flags, self.compiler)
        self.pending: dict[str, Future[str]] = {}

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.compiler.stop()
        self.pool.shutdown()

    def build(self, name: str, source: str, inputs: int, outputs: int, *, brief: bool = False) -> None:
        """Begin to build a piece.

        Parameters
        ----------
        name
            Its name; the library is `name`.so.
        source
            C++ with a function `inductor_entry_impl`.
        inputs, outputs
            How many tensors it takes and returns.
        brief
            Whether to spend less time on it: for what is long and has small kernels.
        """
        entry = _ENTRY.replace("INPUTS", str(inputs)).replace("OUTPUTS", str(outputs))
        self.pending[name] = self.pool.submit(self._build, name, source + entry, brief)

    def _build(self, name: str, source: str, brief: bool) -> str:
        path = self.directory / f"{name}.cpp"
        path.write_text(source, encoding="utf-8")
        try:
            compiling, linking = _parted(self.flags)
            header = ["-include", str(self.header.result())]
            limits = [word for key, value in _BRIEF.items() for word in ("--param", f"{key}={value}")]
            if brief and _is_gcc(compiling[0]):
                compiling = [*compiling, *limits]
            made = self.directory / f"{name}.so"
            return self.compiler.run([*compiling, *header, "-shared", str(path), "-o", str(made), *linking])
        finally:
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Wait for all of them.

        Raises
        ------
        BuildError
            If one of them could not be built.
        """
        said = {name: future.result() for name, future in self.pending.items()}
        for name, problem in said.items():
            if problem:
                raise BuildError(f"the C++ compiler could not build {name}: {problem[:2000]}")


class _Compiler:
    """Runs of the C++ compiler, which can be stopped together."""

    def __init__(self) -> None:
        self.lock, self.stopped = threading.Lock(), False
        self.running: set[subprocess.Popen[str]] = set()

    def run(self, command: list[str]) -> str:
        """Run it; return what it said if it failed, else nothing."""
        with self.lock:
            if self.stopped:
                return "stopped"
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            process = subprocess.Popen(command, text=True, errors="replace", **streams)
            self.running.add(process)
        said = process.communicate()[1]
        with self.lock:
            self.running.discard(process)
        return (said or f"exit {process.returncode}") if process.returncode else ""

    def stop(self) -> None:
        """End all of them."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()


def _compiled_header(folder: Path, flags: list[str], compiler: _Compiler) -> Path:
    """Compile the headers, unless they are there: one folder for each torch, compiler, version and set of flags."""
    import torch

    version = _version(flags[0]).partition("\n")[0]
    key = hashlib.sha256(repr((_HEADER, flags, version, torch.__version__)).encode()).hexdigest()[:16]
    header = folder / key / "craft.h"
    compiled = header.with_name("craft.h.gch")
    if compiled.is_file():
        os.utime(header)
        return header
    header.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=header.parent) as own:  # others may be doing the same
        text, made = Path(own) / "craft.h", Path(own) / "craft.h.gch"
        text.write_text(_HEADER, encoding="utf-8")
        os.replace(text, header)
        if not compiler.run([*_parted(flags)[0], "-x", "c++-header", str(header), "-o", str(made)]):
            os.replace(made, compiled)  # without it everything builds too, some seconds slower
    for other in folder.iterdir():  # each takes 160 MB
        if other != header.parent and time.time() - other.stat().st_mtime > _OLD:
            shutil.rmtree(other, ignore_errors=True)
    return header


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout


def _is_gcc(compiler: str) -> bool:
    return "Free Software Foundation" in _version(compiler)


def _parted(flags: list[str]) -> tuple[list[str], list[str]]:
    """Part the flags of compiling from those of linking."""
    linking = [flag for flag in flags if flag.startswith(("-l", "-L"))]
    return [flag for flag in flags if flag not in linking], linking


def load(library: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """Load a piece."""
    import torch

    run = ctypes.PyDLL(str(library)).craft_run
    run.argtypes, run.restype = [ctypes.py_object], ctypes.py_object
    pack, unpack = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors, torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs

    def call(inputs: list[Tensor]) -> list[Tensor]:
        return unpack(run(pack(inputs)))

    return call


def _flags() -> list[str]:
    """Return the compiler and the flags that torch itself builds generated code with, without debug information."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        from torch._inductor import config
        from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
        from torch._inductor.cpu_vec_isa import pick_vec_isa

    with config.patch({"cpp.vec_isa_ok": True}):  # the processor says what it has; building a trial takes six seconds
        options = CppTorchOptions(vec_isa=pick_vec_isa(), warning_all=False)
    builder = CppBuilder(name="piece", sources="piece.cpp", output_dir=tempfile.gettempdir(), BuildOption=options)
    words = shlex.split(builder.get_command_line())
    dropped = {"piece.cpp", "-o", str(Path(tempfile.gettempdir()) / "piece.so"), "-shared", "-g1", "-pedantic"}
    return [word for word in words if word not in dropped and not word.endswith(("piece.cpp", "piece.so", "piece.main.so"))]
