"""The space of a sweep as it is typed, or written in a file: to a list of what each trial changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from craft import config
from craft.errors import UsageError

__all__ = ["LISTS", "read_space", "whole"]

LISTS = ("--grid", "--zip", "--random", "--sobol")
"""Flags that take words of the form PATH=VALUES."""
_DRAWN = ("random", "sobol")


def read_space(experiment: Any, lists: Mapping[str, list[str]], single: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what each trial changes.

    Parameters
    ----------
    experiment
        What is changed.
    lists
        Words behind each of `LISTS`.
    single
        Values of `--space`, `--seeds` and `--draw-seed`.

    Raises
    ------
    UsageError
        If a path is not there, a value is refused, or a word is none of what is expected.
    """
    from craft.sweep import space

    values = config.flatten(config.to_dict(experiment))
    draw = whole(single.get("--draw-seed", "0"), "--draw-seed")
    spaces, seeds = {flag.removeprefix("--"): words for flag, words in lists.items()}, single.get("--seeds")
    if "--space" in single:
        data = config.load(Path(single["--space"]))
        seeds = seeds or (str(data.pop("seeds")) if "seeds" in data else None)
        spaces = {**_from_file(data), **spaces}
    found: list[dict[str, Any]] = []
    for kind, words in spaces.items():
        found = space.chain(found, _one_space(kind, list(words), values, draw))
    found = found or ([{}] if seeds else [])
    if seeds:
        first = values.get("seed")
        if not isinstance(first, int):
            raise UsageError("got --seeds for an experiment without a field `seed`; give it one, or leave --seeds out")
        found = space.seeded(found, whole(seeds, "--seeds"), first)
    for one in found:
        space.applied(experiment, one)  # a value that is refused is refused before anything is made
    return found


def whole(text: str, flag: str) -> int:
    """Return a whole number that was typed."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"got {flag} {text}; expected a whole number") from None


def _from_file(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the words of the command line that a file's tables stand for."""
    found = {}
    for kind, entries in data.items():
        if f"--{kind}" not in LISTS or not isinstance(entries, Mapping):
            raise UsageError(f"got {kind!r} in the space's file; expected the tables grid, zip, random and sobol, and seeds")
        words = [f"{path}={_listed(entry)}" for path, entry in _leaves(entries) if path != "trials"]
        found[kind] = [str(entries.get("trials", 0)), *words] if kind in _DRAWN else words
    return found


def _leaves(entries: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in entries.items():
        path = f"{above}.{name}" if above else name
        if isinstance(entry, Mapping):
            yield from _leaves(entry, path)
        else:
            yield path, entry


def _listed(entry: Any) -> str:
    return ",".join(map(_word, entry if isinstance(entry, list) else [entry]))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _one_space(kind: str, words: list[str], values: Mapping[str, Any], draw: int) -> list[dict[str, Any]]:
    from craft.sweep import space

    number = whole(words.pop(0), f"--{kind}") if kind in _DRAWN else 0
    columns: dict[str, Any] = {}
    for word in words:
        path, text = _path(kind, word, values)
        if path in columns:
            raise UsageError(f"got {path} twice in --{kind}; give all its values together")
        columns[path] = space.parse_values(text, values[path])
    ranged = [path for path, one in columns.items() if isinstance(one, space.Range)]
    if kind not in _DRAWN:
        if ranged:
            raise UsageError(f"got a range for {ranged[0]} in --{kind}, which takes values; --random and --sobol take ranges")
        return space.product(columns) if kind == "grid" else space.zipped(columns)
    drawn = {path: one if isinstance(one, space.Range) else space.Choice(tuple(one)) for path, one in columns.items()}
    return space.sample(drawn, number, seed=draw, spread=kind == "sobol")


def _path(kind: str, word: str, values: Mapping[str, Any]) -> tuple[str, str]:
    path, equal, text = word.partition("=")
    if not equal:
        raise UsageError(f"got --{kind} {word}; expected PATH=VALUES, such as lr=0.01,0.02")
    if path not in values:
        close = config.nearest(path, values) or [name for name in values if name.rpartition(".")[2] == path][:3]
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(list(values)[:8])} ..."
        raise UsageError(f"got --{kind} {word}, but the experiment has no {path!r}; {hint}")
    return path, text
