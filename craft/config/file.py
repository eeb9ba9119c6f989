"""Configuration files: JSON and TOML, read with guards against what is broken, ambiguous or hostile."""

from __future__ import annotations

import collections
import json
import tomllib
from pathlib import Path
from typing import Any

from craft.config.errors import ConfigError
from craft.config.plain import DEPTH, check_plain
from craft.config.words import short

__all__ = ["LARGE", "load"]

_BYTES = 1 << 20
LARGE = 1 << 28
"""Most bytes of a file that is read as a configuration is and holds a vocabulary: one of a million subwords has fewer."""
_DOTS = 1000


def load(path: Path, *, limit: int = _BYTES) -> dict[str, Any]:
    """Read a .json or .toml file.

    Parameters
    ----------
    path
        The file, UTF-8, up to 32 levels deep.
    limit
        Most bytes that it may have: a configuration has less than 1 MiB, a tokenizer of many subwords has more.

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
        data = parse(_read(path, limit))
        check_plain(data)
    except RecursionError:
        raise ConfigError(f"{path} is more than {DEPTH} levels deep; flatten it") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: got {short(data)}; expected an object at the top")
    return data


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror}); name a configuration file") from error
    if len(content) > limit:
        raise ConfigError(f"it has more than {limit} bytes; a configuration is smaller: name another file")
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
