"""Packages: compiled programs on disk, by what they were made of, for the next process that needs the same one.

A package is a folder `KEY` with `package.json` (the plan, the form of what it returns, the sha256 of each library) and the
libraries. It is written beside its place and renamed into it; one that does not hold what it says is thrown away. The least
recently used go first when all together are too large.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from craft import tree
from craft.engine.plan import Call, Direct, Empty, Plan, View
from craft.types import Tree

__all__ = ["LARGEST", "Library", "Package"]

FORMAT = 1
LARGEST = 1 << 30
"""Bytes that all packages together may take."""
_CONTENT = "package.json"
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
    digest: str
    """Hash of its libraries and its plan."""


class Library:
    """All packages of a folder."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self.folder, self.largest = folder, largest

    def find(self, key: str) -> Package | None:
        """Return the package of that key if it is there and whole."""
        folder = self.folder / key
        try:
            content = json.loads((folder / _CONTENT).read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["key"] != key:
                raise ValueError("another format")
            for name, expected in content["libraries"].items():
                if _sha256(folder / name) != expected:
                    raise ValueError(f"{name} has changed")
            package = Package(folder, _read_plan(content["plan"]), _read_form(content["form"]), content["digest"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(folder / _CONTENT)
        return package

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Lend a folder to build libraries in; what is not stored is gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def store(self, key: str, folder: Path, plan: Plan, returned: Tree) -> Package:
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
            A tree of the form that the program returns.
        """
        libraries = {path.name: _sha256(path) for path in sorted(folder.glob("*.so"))}
        written = {"plan": attrs.asdict(plan, value_serializer=_tagged), "form": _form(returned), "libraries": libraries}
        digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
        content = {"format": FORMAT, "key": key, "digest": digest, **written}
        (folder / _CONTENT).write_text(json.dumps(content), encoding="utf-8")
        with suppress(OSError):  # another process was first: its package is as good
            os.rename(folder, self.folder / key)
        found = self.find(key)
        if found is None:
            raise OSError(f"the package {self.folder / key} was lost while it was written; is the disk full?")
        self.prune(keep=key)
        return found

    def prune(self, keep: str = "") -> None:
        """Throw away the least recently used packages until the rest is small enough, and what was never finished."""
        aged: list[tuple[float, int, Path]] = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                if folder.name.startswith(".building-"):
                    if time.time() - folder.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(folder, ignore_errors=True)
                elif (folder / _CONTENT).is_file():
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
    """Write down how a tree is built, without its leaves."""
    if isinstance(value, dict):
        return {"dict": {key: _form(part) for key, part in value.items()}}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": f"{type(value).__module__}:{type(value).__qualname__}", "parts": [_form(part) for part in value]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_form(part) for part in value]}
    return None


def _read_form(form: Any) -> Any:
    return tree.flatten(_grown(form))[1]


def _grown(form: Any) -> Tree:
    if form is None:
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
