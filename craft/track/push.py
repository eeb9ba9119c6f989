"""Send what a run has recorded to W&B after the fact, as its live mirror does or would have done.

The run's id is the one in `wandb-id.txt`, which a first push makes: a second one goes to the same run in W&B. Online, W&B
leaves out the steps that it has and takes over the rest; offline, each push writes a whole run, and `wandb sync` puts it in
the place of what is there under its id.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Literal, TextIO

from craft import store
from craft.errors import UsageError
from craft.track import lines
from craft.track.login import logged_in, resolve
from craft.track.mirror import identity
from craft.track.tracker import Info
from craft.track.wandb import serve

__all__ = ["check", "push", "runs"]


def runs(path: Path) -> list[Path]:
    """Return the runs that a path stands for: itself, or all below a folder that is none; the path where there is none."""
    if not path.is_dir() or (path / "config.json").is_file():
        return [path]
    return sorted(file.parent for file in path.rglob("config.json") if (file.parent / "metrics.jsonl").is_file()) or [path]


def check(mode: Literal["online", "offline"]) -> None:
    """Refuse what W&B would refuse later, in other words.

    Raises
    ------
    UsageError
        If wandb is not installed, or nobody is logged in who could send something.
    """
    resolve(mode)
    if mode == "online" and not logged_in():
        raise UsageError("got no login for W&B; run `wandb login` first, or push with --mode offline and `wandb sync` later")


def push(
    directory: Path,
    *,
    mode: Literal["online", "offline"] = "online",
    project: str = "",
    group: str = "",
    artifacts: bool = False,
    notes: TextIO | None = None,
) -> None:
    """Send a run that is over to W&B.

    Parameters
    ----------
    directory
        The run's directory.
    mode
        `online`, or `offline` to write what `wandb sync` sends.
    project, group
        Where it goes; empty: where its mirror went, or what its configuration says.
    artifacts
        Whether its newest checkpoint is uploaded, too.
    notes
        Takes lines for people; none: standard output.

    Raises
    ------
    UsageError
        If it is not a run, or has no numbers yet.
    Busy
        If it goes on.
    """
    from craft import record  # it brings torch along

    notes = notes or sys.stdout
    facts = record.read(directory).data
    with store.lock(directory):
        rows = lines.recorded(directory)
        if not rows:
            raise UsageError(f"got {directory}, which has no numbers in metrics.jsonl; expected a run that has made a report")
        info = _info(directory, facts, project, group)
        start = lines.start(info, mode, identity(directory))
        notes.write(f"{directory}: {_count(rows, 'report')}, {_count(rows, 'sample')}\n")
        checkpoint = [{"kind": "checkpoint"}] if artifacts else []
        serve([start, *rows, *checkpoint, *_finish(directory, rows)], notes)


def _count(rows: list[lines.Line], kind: str) -> str:
    number = sum(row["kind"] == kind for row in rows)
    return f"{number} {kind}{'s' * (number != 1)}"


def _info(directory: Path, facts: dict[str, Any], project: str, group: str) -> Info:
    path = directory / "wandb" / "run.json"
    mirrored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else facts.get("run", {}).get("track", {})
    return Info(
        name=directory.resolve().name,
        directory=directory,
        config={key: value for key, value in facts.items() if key != "format"},
        steps=facts["steps"],
        project=project or mirrored.get("project", "craft"),
        group=group or mirrored.get("group", ""),
    )


def _finish(directory: Path, rows: list[lines.Line]) -> list[lines.Line]:
    """Return the line that ends the run; none for a run that was killed."""
    log = directory / "log.txt"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    ended = re.search(r"^\S+Z (finished|stopped|failed)\n\Z", text, re.MULTILINE)
    values = {name: value for row in rows for name, value in row.get("values", {}).items()}
    summary = {name: value for name, value in values.items() if name.startswith("eval/")}
    return [{"kind": "finish", "status": ended[1], "summary": summary}] if ended else []
