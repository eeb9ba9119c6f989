"""What differs between runs, and the names that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from craft import config
from craft.report.words import setting

__all__ = ["fields", "labels", "tails", "varying"]

_MODE = ("device", "precision", "compile", "memory", "threads", "evaluate", "stop")
"""Parts of a run's `run` that can move its numbers: not where it lies and what it tells."""

_CIRCUMSTANCE = ("run.", "data.fingerprint", "code", "versions.")
"""Fields that name a run only where its experiment does not: the machine, the data, the code."""

_FEW = 3
"""Fields in a name, where more are not needed to tell the runs apart."""


def fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's numbers depend on as path -> value, from its config.json; the experiment's fields come first."""
    experiment = data["experiment"]
    found = {"experiment": experiment.get("name", ""), **config.flatten(experiment.get("values", {}))}
    for name in ("steps", "seed"):
        found.setdefault(name, data.get(name))
    told = data.get("data", {})
    if "data.tokenizer" in found and "tokenizer" in told:  # prepared data has its own
        found["data.tokenizer"] = told["tokenizer"]
    run = data.get("run", {})
    found |= config.flatten({"run": {name: run[name] for name in _MODE if name in run}})
    found["data.fingerprint"] = str(told.get("fingerprint", ""))[:12]
    found["code"] = str(data.get("code", ""))[:12]
    return found | config.flatten({"versions": data.get("versions", {})})


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paths whose values are not the same in all rows, in the order of the rows."""
    first, *others = rows
    differ = {path for other in others for path in config.diff(first, other)}
    return [path for path in dict.fromkeys(path for row in rows for path in row) if path in differ]


def labels(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[str]:
    """Name rows by what differs.

    Parameters
    ----------
    rows
        Fields of each, by path.
    places
        Where each lies: its name's end where the fields do not tell it from another.

    Returns
    -------
    Names that are all different, such as `lr=0.01, depth=4`.
    """
    paths = _telling(rows, varying(rows))
    short = _short(paths)
    names = [", ".join(f"{short[path]}={setting(row[path])}" for path in paths if path in row) for row in rows]
    common = str(rows[0].get("experiment", "")) if len({row.get("experiment") for row in rows}) == 1 else ""
    names = [name or common or "run" for name in names]
    return [name if names.count(name) == 1 else f"{name} ({place})" for name, place in zip(names, places, strict=True)]


def _telling(rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> list[str]:
    """Choose the fields of a name: those that tell the rows apart, then others up to a few.

    Fields with few values come first, since what several runs share is what was meant (a width, a kind of token), and what is
    another in each follows from it (a number of steps); of these, words and numbers come before switches.
    """
    own = [path for path in paths if not path.startswith(_CIRCUMSTANCE)]
    own.sort(key=lambda path: (_kinds(rows, [path]), any(isinstance(row.get(path), bool) for row in rows)))
    rest = [path for path in paths if path not in own]
    told: list[str] = []
    for path in (*own, *rest):
        if _kinds(rows, [*told, path]) > _kinds(rows, told):
            told.append(path)
    told += [path for path in own if path not in told][: max(0, _FEW - len(told))]
    return [path for path in paths if path in told]


def _kinds(rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> int:
    return len({tuple(repr(row.get(path, config.ABSENT)) for path in paths) for row in rows})


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each path that is no other's and does not begin with a position."""
    found = {}
    for path in paths:
        parts = path.split(".")
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1) if not parts[-size].isdigit()]
        alone = [end for end in ends if not any(f".{other}".endswith(f".{end}") for other in paths if other != path)]
        found[path] = alone[0] if alone else path
    return found


def tails(directories: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that are all different."""
    parts = [directory.resolve().parts for directory in directories]
    for size in range(1, max(map(len, parts)) + 1):
        found = ["/".join(one[-size:]) for one in parts]
        if len(set(found)) == len(found):
            return found
    return [str(directory) for directory in directories]
