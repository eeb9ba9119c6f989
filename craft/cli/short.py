"""The short help of an experiment: what everyone turns, on two screens."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Sequence
from typing import Annotated, Any, cast

import attrs
import tyro

__all__ = ["documentation", "flags", "show"]

_NESTED = ("model.depth", "model.width", "data.source", "checkpoint.every", "evaluate.every", "sample.prompt", "track.wandb")


def documentation(cls: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a class."""
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
    """Print the help of the flags without a dot and the chosen ones with one, then exit."""
    every: dict[str, tuple[Any, Any, str]] = {}
    for value in values:
        every |= flags(value)
    chosen = {name: flag for name, flag in every.items() if "." not in name or name in _NESTED}
    rest = len(every) - len(chosen)
    fields = {
        name.replace(".", "__"): attrs.field(
            default=default, type=cast(Any, Annotated[kind, tyro.conf.arg(name=name, help=text)])
        )
        for name, (kind, default, text) in chosen.items()
    }
    more = f"{rest} more flags (every field of the model, the optimiser and the run): --help-all"
    command = attrs.make_class("Command", fields)
    tyro.cli(
        command, args=["--help"], prog=prog, description=f"{description}\n\n{more}", config=(tyro.conf.FlagCreatePairsOff,)
    )
