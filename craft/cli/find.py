"""Experiments by name or by path."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from craft import config
from craft.errors import UsageError

__all__ = ["experiment_class", "find", "known", "name_of", "summary"]

_PACKAGE = "experiments"


def _folders() -> list[Path]:
    """Find the folder named experiments: the one here, else the installed one."""
    here = Path.cwd()
    if (here / _PACKAGE).is_dir() and str(here) not in sys.path:
        sys.path.insert(0, str(here))
    spec = importlib.util.find_spec(_PACKAGE)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def known() -> dict[str, Path]:
    """Return the experiments by name, without importing any: what becomes a command line by `cli.main`."""
    files = [path for folder in _folders() for path in sorted(folder.glob("*.py"))]
    return {path.stem: path for path in reversed(files) if not path.stem.startswith("_") and _is_program(path)}


def _is_program(path: Path) -> bool:
    return "cli.main(" in path.read_text(encoding="utf-8", errors="replace")


def summary(path: Path) -> str:
    """Return the first sentence of a file's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def find(name: str) -> ModuleType:
    """Import an experiment by its name, or at a path that was typed (`my/idea.py`).

    Raises
    ------
    UsageError
        If there is none of that name, with the nearest ones.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"got {name} as an experiment, but there is no such file")
        if path.stem in sys.stdlib_module_names or not path.stem.isidentifier():
            raise UsageError(f"got {name} as an experiment, but {path.stem!r} cannot be the name of a module; rename the file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        return module
    stem = name.removeprefix(f"{_PACKAGE}.")
    names = known()
    if stem not in names:
        close = config.nearest(stem, names)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(names)) or 'none here'}."
        raise UsageError(f"got {name!r} as an experiment; {hint} A file of your own is given as a path ending in .py")
    return importlib.import_module(f"{_PACKAGE}.{stem}")


def experiment_class(module: ModuleType) -> type[Any]:
    """Return the attrs class of a module whose `build` needs nothing.

    Raises
    ------
    UsageError
        If there is not exactly one.
    """
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and attrs.has(value) and value.__module__ == module.__name__ and _builds_alone(value)
    ]
    if len(found) != 1:
        names = ", ".join(value.__name__ for value in found) or "none"
        raise UsageError(f"got {module.__name__} as an experiment with classes {names}; expected one attrs class with `build`")
    return found[0]


def _builds_alone(cls: type[Any]) -> bool:
    """Tell an experiment from a part: its `build` needs nothing."""
    build = getattr(cls, "build", None)
    given = list(inspect.signature(build).parameters.values())[1:] if build else []
    return build is not None and all(parameter.default is not parameter.empty for parameter in given)


def name_of(cls: type[Any]) -> str:
    """Return the name of an experiment: its module's last part, also where the module was started as a program."""
    module = sys.modules[cls.__module__]
    if module.__name__ != "__main__":
        return module.__name__.rpartition(".")[2]
    spec = getattr(module, "__spec__", None)
    return spec.name.rpartition(".")[2] if spec else Path(str(module.__file__)).stem
