"""Packages: compiled programs on disk, by what they were made of, for the next process that needs the same one.

A package is a folder `KEY` with `package.json` (the plan, the form of what it returns, the sha256 of each file), the
libraries, and the tensors that the program's function closed over. It is written beside its place and renamed into it; one
that does not hold what it says is thrown away. The least recently used go first when all together are too large.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import torch

from craft import tree
from craft.engine.plan import Call, Direct, Empty, Plan, View
from craft.types import Tensor, Tree

__all__ = ["LARGEST", "Library", "Package"]

FORMAT = 2
LARGEST = 1 << 30
"""Bytes that all packages together may take."""
_CONTENT, _TENSOR = "package.json", ".tensor"
_WRITTEN = ("plan", "form", "files", "constants")
_ABANDONED = 3600.0
"""Seconds after which a folder that somebody began to build in is taken for given up."""


@attrs.frozen
class Package:
    """A program that is on disk."""

    folder: Path
    """Where it is."""
    plan: Plan
    """What it does."""
    structure: Any
    """Structure of what it returns; see `tree.flatten`."""
    constants: list[Tensor]
    """Tensors that it takes behind its arguments."""
    digest: str
    """Hash of its files and its plan."""


class Library:
    """All packages of a folder."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self.folder, self.largest = folder, largest

    def find(self, key: str) -> Package | None:
        """Return the package of that key if it is there and whole."""
        folder = self.folder / key
        try:
            content = json.loads((folder / _CONTENT).read_text(encoding="utf-8"))
            written = {name: content[name] for name in _WRITTEN}
            if content["format"] != FORMAT or content["key"] != key or content["digest"] != _digest(written):
                raise ValueError("it has changed, or is of another format")
            for name, expected in content["files"].items():
                if _sha256(folder / name) != expected:
                    raise ValueError(f"{name} has changed")
            plan, structure = _read_plan(content["plan"]), _read_form(content["form"])
            constants = [_read_tensor(folder / f"{i}{_TENSOR}", about) for i, about in enumerate(content["constants"])]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):
            shutil.rmtree(folder, ignore_errors=True)  # most often there is none
            return None
        with suppress(OSError):
            os.utime(folder / _CONTENT)
        return Package(folder, plan, structure, constants, content["digest"])

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Lend a folder to build libraries in; what is not stored is gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def store(self, key: str, folder: Path, plan: Plan, returned: Tree, constants: Sequence[Tensor] = ()) -> str:
        """Make a package of the libraries in a folder; one that came first stays.

        Parameters
        ----------
        key
            What it is found by.
        folder
            The libraries, from `building`.
        plan
            What it does.
        returned
            A tree of the form that the program returns, with numbers for leaves.
        constants
            Tensors that it takes behind its arguments.

        Returns
        -------
        The package's digest; empty where it cannot be kept: the form is of a class that is not found by its name, or the
        disk is full.
        """
        try:
            return self._store(key, folder, plan, returned, constants)
        except (OSError, ValueError, TypeError, AttributeError, ImportError):
            return ""

    def _store(self, key: str, folder: Path, plan: Plan, returned: Tree, constants: Sequence[Tensor]) -> str:
        form = _form(returned)
        if _read_form(json.loads(json.dumps(form))) != tree.flatten(returned)[1]:
            raise ValueError("the form cannot be read back")
        about = [_write_tensor(folder / f"{i}{_TENSOR}", value) for i, value in enumerate(constants)]
        files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.suffix in (".so", _TENSOR)}
        written = {
            "plan": attrs.asdict(plan, value_serializer=_tagged), "form": form, "files": files, "constants": about
        }  # fmt: skip
        content = {"format": FORMAT, "key": key, "digest": _digest(written), **written}
        (folder / _CONTENT).write_text(json.dumps(content), encoding="utf-8")
        try:
            os.rename(folder, self.folder / key)
        except OSError:  # another process was first: its package is as good, if it is whole
            if self.find(key) is None:
                os.rename(folder, self.folder / key)
        self.prune(keep=key)
        return str(content["digest"])

    def prune(self, keep: str = "") -> None:
        """Throw away the least recently used packages until the rest is small enough, and what was never finished."""
        aged: list[tuple[float, int, Path]] = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                if folder.name.startswith(".building-") or not (folder / _CONTENT).is_file():
                    if time.time() - folder.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(folder, ignore_errors=True)
                else:
                    size = sum(path.stat().st_size for path in folder.iterdir())
                    aged.append(((folder / _CONTENT).stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in aged)
        for _, size, folder in sorted(aged):
            if total <= self.largest:
                return
            if folder.name != keep:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(written: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


def _write_tensor(path: Path, value: Tensor) -> dict[str, Any]:
    """Write a tensor's memory, gaps and all; return how it lies in it."""
    size, stride = list(value.shape), list(value.stride())
    extent = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if value.numel() else 0
    path.write_bytes(value.as_strided((extent,), (1,)).clone().view(torch.uint8).numpy().tobytes())
    return {"size": size, "stride": stride, "dtype": str(value.dtype).removeprefix("torch.")}


def _read_tensor(path: Path, about: dict[str, Any]) -> Tensor:
    held, dtype = bytearray(path.read_bytes()), getattr(torch, about["dtype"])
    flat = torch.frombuffer(held, dtype=dtype) if held else torch.empty(0, dtype=dtype)
    return flat.as_strided(about["size"], about["stride"])


def _tagged(instance: Any, field: Any, value: Any) -> Any:
    """Say of each entry of a plan what kind it is."""
    if field is not None and field.name in ("calls", "views"):
        return [{"kind": type(entry).__name__, **attrs.asdict(entry)} for entry in value]
    return value


def _read_plan(data: dict[str, Any]) -> Plan:
    kinds = {cls.__name__: cls for cls in (Call, Direct, Empty, View)}

    def entry(fields: dict[str, Any]) -> Any:
        return kinds[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})

    return Plan(**{**data, "views": [entry(e) for e in data["views"]], "calls": [entry(e) for e in data["calls"]]})


def _form(value: Tree) -> Any:
    """Write down how a tree is built, without its leaves, which are numbers."""
    if type(value) is int:
        return "leaf"
    if value is None:
        return None
    if type(value) is dict:
        return {"dict": {key: _form(part) for key, part in value.items()}}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": f"{type(value).__module__}:{type(value).__qualname__}", "parts": [_form(part) for part in value]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_form(part) for part in value]}
    raise TypeError(f"a {type(value).__qualname__} in what a program returns")


def _read_form(form: Any) -> Any:
    return tree.flatten(_grown(form))[1]


def _grown(form: Any) -> Tree:
    if form is None:
        return None
    if form == "leaf":
        return 0
    if "dict" in form:
        return {key: _grown(part) for key, part in form["dict"].items()}
    if "named" in form:
        module, _, name = form["named"].partition(":")
        cls = importlib.import_module(module)
        for part in name.split("."):
            cls = getattr(cls, part)
        if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
            raise ValueError(f"{form['named']} is not a NamedTuple")
        return cls(*(_grown(part) for part in form["parts"]))
    kind = "list" if "list" in form else "tuple"
    return (list if kind == "list" else tuple)(_grown(part) for part in form[kind])
