"""Configurations: attrs values to plain data (JSON, TOML) and back, strictly, with every problem told at once.

An attrs value that stands where its annotation alone would not tell its class (a union, a base class) carries
`kind: ClassName`. A field that is made by `tunable` may change without a new program.
"""

from __future__ import annotations

import collections
import difflib
import functools
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union

import attrs
import cattrs

__all__ = [
    "ABSENT",
    "ConfigError",
    "at_least",
    "diff",
    "digest",
    "finite_positive",
    "flatten",
    "fraction",
    "from_dict",
    "load",
    "nearest",
    "positive",
    "to_dict",
    "tunable",
    "tunables",
]

T = TypeVar("T")

_DEPTH = 32
_BYTES = 1 << 20
_DOTS = 1000


class ConfigError(ValueError):
    """A configuration is not what its class describes; the message has one line for each problem."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""What `diff` gives for the side that has no such path."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(attribute: Any, value: Any, expected: str) -> None:
    raise ValueError(f"got {attribute.name}={value!r}; expected {expected}")


def positive(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a number above 0."""
    if not (_number(value) and value > 0):
        _refuse(attribute, value, "a number above 0")


def finite_positive(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a finite number above 0."""
    if not (_number(value) and 0 < value < math.inf):
        _refuse(attribute, value, "a finite number above 0")


def fraction(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a number from 0 to below 1."""
    if not (_number(value) and 0 <= value < 1):
        _refuse(attribute, value, "a number from 0 to below 1")


def at_least(least: float) -> Callable[[Any, Any, Any], None]:
    """Make a validator of a field: a number that is not below `least`."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not (_number(value) and value >= least):
            _refuse(attribute, value, f"{least} or more")

    return check


def tunable(default: float, *, complement: bool = False, validator: Any = None) -> Any:
    """Declare a float field that may change without a new program: it lives in the state under its path.

    Parameters
    ----------
    default
        Its default.
    complement
        Whether the state holds 1 - value: float32 keeps more of a number near 1 that way.
    validator
        As of `attrs.field`.

    Returns
    -------
    What stands to the right of the annotation in an attrs class.
    """
    return attrs.field(default=default, validator=validator, metadata={"tunable": "complement" if complement else "value"})


def tunables(config: Any) -> dict[str, float]:
    """Collect the tunable numbers of an attrs value and of all that it holds.

    Parameters
    ----------
    config
        An attrs value; others in its fields, tuples, lists and dicts are searched too.

    Returns
    -------
    Path (`model.pattern.0.dropout`) -> value, or 1 - value where the field says so.
    """
    return dict(_tunables(config, ""))


def _tunables(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            inner, place = getattr(value, field.name), _join(path, field.name)
            role = field.metadata.get("tunable")
            if role is None:
                yield from _tunables(inner, place)
            else:
                yield place, float(1 - inner if role == "complement" else inner)
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in _items(value):
            yield from _tunables(inner, _join(path, key))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _join(*parts: Any) -> str:
    return ".".join(str(part) for part in parts if part != "")


class _Problems(Exception):  # noqa: N818 - never leaves this file
    """Problems of one value, each with its path below that value."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        super().__init__(found)
        self.found = found


def _fail(value: Any, expected: str) -> typing.NoReturn:
    raise _Problems([("", f"got {_short(value)}; expected {expected}")])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null", Path: "a path"}


def _member(cls: Any) -> str:
    if _is_literal(cls):
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(cls))
    if attrs.has(cls):
        return f"a table of {cls.__name__}"
    return "a list" if _is_sequence(cls) else "a table" if _is_mapping(cls) else _WORDS.get(cls, str(cls))


def _to_exact(value: Any, cls: Any) -> Any:
    return value if type(value) is cls else _fail(value, _member(cls))


def _to_float(value: Any, cls: Any) -> float:
    if not _number(value) or (isinstance(value, int) and abs(value) > 10**308):
        _fail(value, "a number")
    return float(value)


def _to_path(value: Any, cls: Any) -> Path:
    return value if isinstance(value, Path) else Path(_to_exact(value, str))


def _to_literal(value: Any, cls: Any) -> Any:
    choices = typing.get_args(cls)
    for choice in choices:  # 1 == True, so that the type counts
        if type(value) is type(choice) and value == choice:
            return choice
    close = nearest(value, choices) if isinstance(value, str) else []
    return _fail(value, _member(cls) + _meant(close))


def _to_sequence(value: Any, cls: Any) -> Any:
    if not isinstance(value, list | tuple):
        _fail(value, "a list")
    inner = typing.get_args(cls)
    if _is_tuple(cls) and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            _fail(value, f"a list of {len(inner)}")
        kinds = list(inner)
    else:
        kinds = [inner[0] if inner else Any] * len(value)
    made = _each(zip(range(len(value)), value, kinds, strict=True))
    return made if (typing.get_origin(cls) or cls) is list else tuple(made)


def _to_mapping(value: Any, cls: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _fail(value, "a table")
    inner = (*typing.get_args(cls), Any, Any)[1]
    return dict(zip(value, _each((key, item, inner) for key, item in value.items()), strict=True))


def _each(items: Iterable[tuple[Any, Any, Any]]) -> list[Any]:
    """Structure (key, value, type) each; the problems of all come in one exception."""
    made, problems = [], []
    for key, value, kind in items:
        try:
            made.append(_converter.structure(value, kind))
        except _Problems as error:
            problems += [(_join(key, path), text) for path, text in error.found]
    if problems:
        raise _Problems(problems)
    return made


def _to_union(value: Any, cls: Any) -> Any:
    members = [type(None) if member is None else member for member in typing.get_args(cls)]
    classes = [member for member in members if attrs.has(member)]
    if isinstance(value, Mapping) and classes:
        families = {name: found for member in reversed(classes) for name, found in _family(member).items()}
        if "kind" not in value and len(classes) > 1:
            raise _Problems([("kind", f"missing; expected one of {', '.join(sorted(families))}")])
        return _build(value, classes[0], families)
    others = [member for member in members if not attrs.has(member)]
    for member in sorted(others, key=lambda member: type(value) is not member):
        try:
            return _converter.structure(value, member)
        except _Problems:
            continue
    return _fail(value, " or ".join(_member(member) for member in members))


def _to_attrs(value: Any, cls: Any) -> Any:
    if not isinstance(value, Mapping):
        _fail(value, _member(cls))
    return _build(value, cls, _family(cls))


def _family(cls: Any) -> dict[str, Any]:
    """Return a class and those below it, by name; attrs leaves the undecorated twins of slotted classes about."""
    found: dict[str, Any] = {}
    for child in cls.__subclasses__():
        found |= _family(child)
    return found | ({cls.__name__: cls} if "__attrs_attrs__" in vars(cls) else {})


@functools.cache
def _fields(cls: Any) -> dict[str, Any]:
    return {field.name: field for field in attrs.fields(attrs.resolve_types(cls)) if field.init}


def _build(data: Mapping[str, Any], cls: Any, family: Mapping[str, Any]) -> Any:
    data = dict(data)
    if "kind" in data and "kind" not in _fields(cls):
        kind = data.pop("kind")
        if not isinstance(kind, str) or kind not in family:
            close = nearest(kind, family) if isinstance(kind, str) else []
            raise _Problems([("kind", f"got {_short(kind)}; expected one of {', '.join(sorted(family))}{_meant(close)}")])
        cls = family[kind]
    values: dict[str, Any] = {}
    problems = _strangers(data, cls)
    for name, field in _fields(cls).items():
        try:
            if name in data:
                [values[name]] = _each([(name, data[name], Any if field.type is None else field.type)])
            elif field.default is attrs.NOTHING:
                problems.append((name, "missing; it has no default"))
        except _Problems as error:
            problems += error.found
    problems += _invalid(cls, values)
    if problems:
        raise _Problems(problems)
    return _construct(cls, values)


def _strangers(data: Mapping[str, Any], cls: Any) -> list[tuple[str, str]]:
    names = _fields(cls)
    return [
        (str(key), f"unknown key; {cls.__name__} has {', '.join(names)}{_meant(nearest(str(key), names))}")
        for key in data
        if key not in names
    ]


def _invalid(cls: Any, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Run the validators one by one: the constructor would stop at the first that fails."""
    bare = cls.__new__(cls)
    for name, field in _fields(cls).items():
        default = field.default
        if name in values or not (default is attrs.NOTHING or isinstance(default, attrs.Factory)):  # type: ignore[arg-type]
            object.__setattr__(bare, name, values.get(name, default))
    problems = []
    for name, value in values.items():
        field = _fields(cls)[name]
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
        return cls(**{_fields(cls)[name].alias: value for name, value in values.items()})
    except (ValueError, TypeError) as error:
        raise _Problems([("", str(error))]) from error


def _from_attrs(cls: Any) -> Callable[[Any], dict[str, Any]]:
    def convert(value: Any) -> dict[str, Any]:
        own: Any = type(value)
        fields = _fields(own)
        data = {name: _converter.unstructure(getattr(value, name), field.type) for name, field in fields.items()}
        return data if own is cls else {"kind": own.__name__, **data}

    return convert


def _from_union(value: Any) -> Any:
    data = _converter.unstructure(value)
    return {"kind": type(value).__name__, **data} if attrs.has(type(value)) else data


def _from_sequence(cls: Any) -> Callable[[Any], list[Any]]:
    inner = typing.get_args(cls)

    def convert(value: Any) -> list[Any]:
        fixed = _is_tuple(cls) and inner and inner[-1] is not Ellipsis
        kinds = inner if fixed else [inner[0] if inner else None] * len(value)
        return [_converter.unstructure(item, kind) for item, kind in zip(value, kinds, strict=True)]

    return convert


def _from_mapping(cls: Any) -> Callable[[Any], dict[str, Any]]:
    inner = (*typing.get_args(cls), None, None)[1]
    return lambda value: {key: _converter.unstructure(item, inner) for key, item in value.items()}


def _is_union(cls: Any) -> bool:
    return typing.get_origin(cls) in (Union, types.UnionType)


def _is_tuple(cls: Any) -> bool:
    return (typing.get_origin(cls) or cls) is tuple


def _is_sequence(cls: Any) -> bool:
    return (typing.get_origin(cls) or cls) in (tuple, list, Sequence)


def _is_mapping(cls: Any) -> bool:
    return (typing.get_origin(cls) or cls) in (dict, Mapping)


def _is_literal(cls: Any) -> bool:
    return typing.get_origin(cls) is Literal


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for primitive in (int, str, bool, type(None)):
        converter.register_structure_hook(primitive, _to_exact)
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook(Path, _to_path)
    for predicate, hook in (
        (_is_literal, _to_literal),
        (_is_sequence, _to_sequence),
        (_is_mapping, _to_mapping),
        (attrs.has, _to_attrs),
        (_is_union, _to_union),
    ):
        converter.register_structure_hook_func(predicate, hook)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook(float, float)
    converter.register_unstructure_hook_factory(_is_sequence, _from_sequence)
    converter.register_unstructure_hook_factory(_is_mapping, _from_mapping)
    converter.register_unstructure_hook_factory(attrs.has, _from_attrs)
    converter.register_unstructure_hook_func(_is_union, _from_union)
    return converter


_converter = _make_converter()


def to_dict(config: Any) -> dict[str, Any]:
    """Turn an attrs value into plain JSON data: `from_dict` of it is an equal value.

    Parameters
    ----------
    config
        An attrs value.

    Returns
    -------
    Dicts, lists, text, numbers, booleans and None; every field is there, also those at their default.

    Raises
    ------
    ConfigError
        If a field holds something that JSON cannot say; its path is named.
    """
    data: dict[str, Any] = _converter.unstructure(config)
    _check_plain(data)
    return data


def from_dict(cls: type[T], data: Mapping[str, Any], *, path: str = "") -> T:
    """Make an attrs value of plain data, strictly.

    An int is taken where a float is expected; nothing else is converted. Missing keys take their defaults.

    Parameters
    ----------
    cls
        The attrs class.
    data
        What `to_dict` or `load` returned.
    path
        What the paths in messages start with.

    Returns
    -------
    A value of the class, or of one below it that `kind` names.

    Raises
    ------
    ConfigError
        If keys are unknown, values have a wrong type, or validators refuse; all problems, each with its path.
    """
    try:
        return _converter.structure(data, cls)
    except _Problems as error:
        lines = [f"{place}: {text}" if place else text for place, text in ((_join(path, p), text) for p, text in error.found)]
        raise ConfigError("\n".join(lines)) from None


def load(path: Path) -> dict[str, Any]:
    """Read a .json or .toml file.

    Parameters
    ----------
    path
        The file, UTF-8, up to 1 MiB and 32 levels deep.

    Returns
    -------
    Plain data.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not well-formed, repeats a key, or is too large; the file, line and column are named.
    """
    path = Path(path)
    parse = {".json": _parse_json, ".toml": _parse_toml}.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"got {path}; expected a file that ends in .json or .toml")
    try:
        data = parse(_read(path))
        _check_plain(data)
    except RecursionError:
        raise ConfigError(f"{path} is more than {_DEPTH} levels deep; flatten it") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: got {_short(data)}; expected an object at the top")
    return data


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror}); name a configuration file") from error
    if len(content) > _BYTES:
        raise ConfigError(f"it has more than {_BYTES} bytes; a configuration is smaller: name another file")
    return content.decode("utf-8-sig")


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = [key for key, times in collections.Counter(key for key, _ in pairs).items() if times > 1]
        raise ConfigError(f"the key {', '.join(twice[:3])} stands twice in one object; keep one of them")
    return table


def _no_constant(text: str) -> None:
    raise ConfigError(f"got {text}; JSON has no such number")


def _parse_toml(text: str) -> Any:
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _DOTS:  # tomllib takes quadratic time for a dotted key
            raise ConfigError(f"line {number} has more than {_DOTS} dots; a key is shorter: break the line")
    return tomllib.loads(text.replace("\r\n", "\n"))


def _check_plain(data: Any, path: str = "", depth: int = 0) -> None:
    if depth > _DEPTH:
        raise ConfigError(f"more than {_DEPTH} levels deep at {path[:60]}; flatten it")
    if isinstance(data, dict | list):
        for key, value in _items(data):
            if not isinstance(key, str | int) or (isinstance(data, dict) and not isinstance(key, str)):
                raise ConfigError(f"got the key {_short(key)} at {path or 'the top'}; expected text")
            _check_plain(value, _join(path, key), depth + 1)
    elif not (data is None or isinstance(data, str | bool | int) or (isinstance(data, float) and math.isfinite(data))):
        raise ConfigError(f"got {_short(data)} at {path or 'the top'}; expected text, a finite number, true, false or null")


def flatten(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data as path -> value; empty dicts and lists stand as values."""
    return dict(_flatten(data, ""))


def _flatten(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping | list | tuple) and (data or not path):
        for key, value in _items(data):
            yield from _flatten(value, _join(path, key))
    else:
        yield path, data


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare plain data.

    Parameters
    ----------
    a, b
        What `to_dict` or `load` returned.

    Returns
    -------
    Path -> (value in `a`, value in `b`) where they differ, sorted by path; `ABSENT` where there is none.
    """
    one, two = flatten(a), flatten(b)
    pairs = {path: (one.get(path, ABSENT), two.get(path, ABSENT)) for path in sorted(one.keys() | two.keys())}
    return {path: pair for path, pair in pairs.items() if not _same(*pair)}


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def digest(data: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal; the order of keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def nearest(word: str, words: Iterable[Any]) -> list[str]:
    """Return up to three of the words that look most like `word`, best first."""
    return difflib.get_close_matches(word[:100], [str(other) for other in words], n=3, cutoff=0.5)


def _meant(close: list[str]) -> str:
    return f" (did you mean {' or '.join(close)}?)" if close else ""
