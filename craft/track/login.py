"""Whether Weights & Biases is on, found without importing wandb, which takes a second or two."""

from __future__ import annotations

import configparser
import importlib.util
import netrc
import os
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from craft.errors import UsageError

__all__ = ["Mode", "logged_in", "resolve"]

Mode: TypeAlias = Literal["online", "offline", "off"]

HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts of the public server; a login at one is a login at the other."""

KEY = 40
"""Characters of an API key, at least; a shorter password in a netrc file is not meant for W&B."""


def resolve(mode: str) -> Mode:
    """Say where the mirror of a run goes.

    Parameters
    ----------
    mode
        `online`, `offline`, `off`, or `auto`: what WANDB_MODE or `wandb offline` says, and online only where a login is found.

    Returns
    -------
    `online`, `offline` or `off`.

    Raises
    ------
    UsageError
        If the mode is none of these, or W&B is asked for and not installed.
    """
    if mode not in ("auto", "online", "offline", "off"):
        raise UsageError(f"got track.wandb={mode}; expected auto, online, offline or off")
    installed = importlib.util.find_spec("wandb") is not None
    if mode in ("online", "offline") and not installed:
        raise UsageError(f"got track.wandb={mode}, but wandb is not installed; `pip install wandb`, or use off")
    if mode == "auto":
        return _auto() if installed else "off"
    return "online" if mode == "online" else "offline" if mode == "offline" else "off"


def logged_in() -> bool:
    """Return whether `wandb login` has left a key here, or the environment holds one."""
    return _logged_in(_settings())


def _auto() -> Mode:
    settings = _settings()
    wanted = os.environ.get("WANDB_MODE") or settings.get("mode", "online")
    if wanted in ("offline", "dryrun"):
        return "offline"
    return "online" if wanted in ("online", "run", "shared") and _logged_in(settings) else "off"


def _settings() -> dict[str, str]:
    """Read what `wandb login` and `wandb offline` write; the working directory's file wins over the user's."""
    home = os.environ.get("WANDB_CONFIG_DIR") or Path("~", ".config", "wandb").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    for path in (Path(home, "settings"), Path("wandb", "settings")):
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue  # a broken file of another program must not stop a run
    return dict(parser["default"]) if parser.has_section("default") else {}


def _logged_in(settings: dict[str, str]) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    base = os.environ.get("WANDB_BASE_URL") or settings.get("base_url", "")
    host = urlsplit(base).netloc or HOSTS[0]
    hosts = HOSTS if host in HOSTS else (host,)
    return len(settings.get("api_key", "")) >= KEY or any(len(_password(host)) >= KEY for host in hosts)


def _password(host: str) -> str:
    for path in _netrc_files():
        try:
            entry = netrc.netrc(str(path)).authenticators(host)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            return ""
        return (entry[2] or "") if entry else ""
    return ""


def _netrc_files() -> list[Path]:
    if os.environ.get("NETRC"):
        return [Path(os.environ["NETRC"]).expanduser()]
    return [path for name in (".netrc", "_netrc") if (path := Path("~", name).expanduser()).exists()]
