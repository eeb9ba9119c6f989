"""The short help of an experiment: what everyone turns, on two screens."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import attrs
import tyro

__all__ = ["documentation", "flags", "show"]

_SHOWN = (
    ("lr", "steps", "batch", "context", "seed", "model.width", "model.depth", "data.source"),
    ("out", "resume", "config", "preset", "device", "precision", "compile", "memory", "track.wandb", "debug"),
)
"""What everyone turns, of the experiment and of the run; an experiment's own flat fields come after the first."""


def documentation(cls: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a class, its parents' included."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if attrs.has(parent):
            found |= _documentation(parent)
    return found


def _documentation(cls: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def flags(value: Any, path: str = "") -> dict[str, tuple[Any, Any, str]]:
    """Return (type, default, help) of every number, word and path below an attrs value, by its flag."""
    found: dict[str, tuple[Any, Any, str]] = {}
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            found |= flags(item, f"{path}{index}.") if attrs.has(type(item)) else {}
        return found
    hints, docs = typing.get_type_hints(type(value)), documentation(type(value))
    for field in attrs.fields(type(value)):
        inner = getattr(value, field.name)
        if attrs.has(type(inner)) or isinstance(inner, tuple):
            found |= flags(inner, f"{path}{field.name}.")
        else:
            found[path + field.name] = (hints[field.name], inner, docs.get(field.name, ""))
    return found


def show(values: Sequence[Any], description: str, prog: str) -> None:
    """Print the help of what everyone turns, then exit.

    Parameters
    ----------
    values
        The experiment first, then what else has flags; their fields are the defaults.
    description
        What the experiment is.
    prog
        What was typed to get here.
    """
    own = flags(values[0])
    every = {name: flag for value in values for name, flag in flags(value).items()}
    flat = [name for name in own if "." not in name and name not in _SHOWN[0]]
    names = [name for name in (*_SHOWN[0], *flat, *_SHOWN[1]) if name in every]
    fields = {name.replace(".", "__"): _field(name, *every[name]) for name in names}
    rest = f"Show all flags: {len(every) - len(names)} more, of the model, the optimiser, the schedule and the run."
    fields["help_all"] = _field("help-all", bool, False, rest)
    command = attrs.make_class("Command", fields)
    parts = [part for part in description.split("\n\n") if not part.startswith("Expect:")]  # what to type, not what came of it
    tyro.cli(command, args=["--help"], prog=prog, description="\n\n".join(parts), config=(tyro.conf.FlagCreatePairsOff,))


def _field(name: str, kind: Any, default: Any, text: str) -> Any:
    metavar = {"Path": "PATH"}.get(getattr(kind, "__name__", "")) or ("PATH" if Path in typing.get_args(kind) else None)
    unset = default is None or default == ""
    shown = tyro.conf.arg(name=name, help=text, metavar=metavar, help_behavior_hint="" if unset or kind is bool else None)
    return attrs.field(default=default, type=cast(Any, Annotated[kind, shown]))
