"""Tables become attrs values: the class by `kind`, every key known, every validator asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from craft.config.annotation import fields
from craft.config.problems import Problems, Structure, gather
from craft.config.words import meant, nearest, short

__all__ = ["build", "family"]


def family(cls: Any) -> dict[str, Any]:
    """Return a class and those below it, by name; attrs leaves the undecorated twins of slotted classes about."""
    found: dict[str, Any] = {}
    for child in cls.__subclasses__():
        found |= family(child)
    return found | ({cls.__name__: cls} if "__attrs_attrs__" in vars(cls) else {})


def build(structure: Structure, data: Mapping[str, Any], cls: Any, classes: Mapping[str, Any]) -> Any:
    """Make an attrs value.

    Parameters
    ----------
    structure
        Makes the values of the fields.
    data
        The table; missing keys take their defaults.
    cls
        The class where the table has no `kind`.
    classes
        The classes that `kind` may name.

    Returns
    -------
    The value.

    Raises
    ------
    Problems
        All of them, each with its path below the table.
    """
    data = dict(data)
    if "kind" in data and "kind" not in fields(cls):
        cls = _named(data.pop("kind"), classes)
    values: dict[str, Any] = {}
    problems = _strangers(data, cls)
    for name, field in fields(cls).items():
        try:
            if name in data:
                [values[name]] = gather(structure, [(name, data[name], Any if field.type is None else field.type)])
            elif field.default is attrs.NOTHING:
                problems.append((name, "missing; it has no default"))
        except Problems as error:
            problems += error.found
    problems += _invalid(cls, values)
    if problems:
        raise Problems(problems)
    return _construct(cls, values)


def _named(kind: Any, classes: Mapping[str, Any]) -> Any:
    if not isinstance(kind, str) or kind not in classes:
        close = nearest(kind, classes) if isinstance(kind, str) else []
        raise Problems([("kind", f"got {short(kind)}; expected one of {', '.join(sorted(classes))}{meant(close)}")])
    return classes[kind]


def _strangers(data: Mapping[str, Any], cls: Any) -> list[tuple[str, str]]:
    names = fields(cls)
    return [
        (str(key), f"unknown key; {cls.__name__} has {', '.join(names)}{meant(nearest(str(key), names))}")
        for key in data
        if key not in names
    ]


def _invalid(cls: Any, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Run the validators one by one: the constructor would stop at the first that fails."""
    bare = cls.__new__(cls)
    for name, field in fields(cls).items():
        default = field.default
        if name in values or not (default is attrs.NOTHING or isinstance(default, attrs.Factory)):  # type: ignore[arg-type]
            object.__setattr__(bare, name, values.get(name, default))
    problems = []
    for name, value in values.items():
        field = fields(cls)[name]
        if field.validator is not None and field.converter is None:
            try:
                field.validator(bare, field, value)
            except (ValueError, TypeError) as error:
                problems.append((name, str(error)))
            except AttributeError:
                continue  # it looks at a field that has a problem of its own, or at a default that is not made yet
    return problems


def _construct(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return cls(**{fields(cls)[name].alias: value for name, value in values.items()})
    except (ValueError, TypeError) as error:
        raise Problems([("", str(error))]) from error
