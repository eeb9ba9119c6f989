"""The command `craft track`: bring recorded runs to a dashboard, and make the dashboard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import attrs
import tyro

from craft import store
from craft.cli.flags import parse_flags
from craft.errors import UsageError

__all__ = ["track"]

_HELP = """\
usage: craft track COMMAND [OPTIONS]

Bring runs to Weights & Biases after the fact; as they go: craft train NAME
--track.wandb online.

commands
  push RUN [RUN...]       send recorded runs, or all runs below a folder
  dashboard --project P   make a workspace that compares a project's runs

  craft track COMMAND --help  what a command takes
"""


def track(argv: Sequence[str]) -> int:
    """Run `craft track`."""
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("--help", "-h"):
        sys.stdout.write(_HELP)
        return 0
    commands: dict[str, Callable[[Sequence[str]], int]] = {"push": _push, "dashboard": _dashboard}
    if command not in commands:
        raise UsageError(f"got the command track {command!r}; expected push or dashboard")
    return commands[command](rest)


@attrs.frozen
class Push:
    """Send recorded runs to Weights & Biases, with the history that a live mirror would have sent.

    To push twice is to push once: a run keeps its id, in RUN/wandb-id.txt.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
    """Directories of runs, or folders with runs below."""
    project: str = ""
    """Project in W&B; empty: the one that the run was mirrored to or configured with."""
    group: str = ""
    """Name that related runs share; empty: the run's own."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes what `wandb sync` sends later."""
    artifacts: bool = False
    """Also upload the newest checkpoint of each run."""
    debug: bool = False
    """Show the whole traceback of an error."""


@attrs.frozen
class Dashboard:
    """Make a W&B workspace that compares the runs of a project: quality, training, speed and samples.

    Each call saves a new view of the project, named Craft.
    """

    project: str = "craft"
    """Project in W&B."""
    entity: str = ""
    """User or team that the project belongs to; empty: you."""
    flops: str = ""
    """Name under which the runs log FLOPs, such as train/flops; empty: quality is not drawn over them."""
    print: bool = False
    """Show the definition as JSON instead of saving it; needs no login."""
    debug: bool = False
    """Show the whole traceback of an error."""


def _push(argv: Sequence[str]) -> int:
    from craft.track import push
    from craft.track.wandb import stop

    args: Push = parse_flags(Push, argv, "craft track push")
    found = list(dict.fromkeys(run for path in args.runs for run in push.runs(path)))
    if not found:
        raise UsageError("got no run to push; name one or more: craft track push outputs/char_1m/...")
    push.check(args.mode)
    skipped = 0
    for run in found:
        try:
            push.push(run, mode=args.mode, project=args.project, group=args.group, artifacts=args.artifacts)
        except (UsageError, store.Busy) as error:
            if len(found) == 1:
                raise
            sys.stderr.write(f"left out: {error}\n")
            skipped += 1
    if skipped < len(found):
        stop()
    return int(skipped > 0)


def _dashboard(argv: Sequence[str]) -> int:
    from craft.track import dashboard

    args: Dashboard = parse_flags(Dashboard, argv, "craft track dashboard")
    if args.print:
        sys.stdout.write(dashboard.definition(dashboard.workspace(args.project, args.entity, args.flops)) + "\n")
    else:
        sys.stdout.write(f"saved: {dashboard.save(args.project, args.entity, args.flops)}\n")
    return 0
