"""The process that speaks to Weights & Biases: it reads JSON lines and is the only one that imports wandb.

`python -m craft.track.wandb` is started by `mirror.Wandb`; it ends soon after its input does, whatever the server does.
`python -m craft.track.wandb RUN` sends the record of a run that W&B has missed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from craft.track.jsonl import read

__all__ = ["main"]

CAPACITY = 100_000
"""Lines that wait while the server does not answer; more are dropped."""

GRACE = 8.0
"""Seconds to close the run in when the training process was killed."""


def main() -> None:
    """Serve the lines of standard input, or send the record of the run that the command line names."""
    if len(sys.argv) > 1:
        sys.exit(send(Path(sys.argv[1])))
    if hasattr(os, "nice"):
        os.nice(10)  # on a small machine the run needs every core
    notes = _own_output()
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue(CAPACITY)
    threading.Thread(target=_read, args=(lines, notes), daemon=True).start()
    try:
        code = 0 if serve(iter(lines.get, None), notes) else 1
        _stop_service()
    except Exception as error:  # noqa: BLE001 - whatever wandb raises becomes one line for people
        code = 1
        _note(notes, f"{type(error).__name__}: {error}".split("\n")[0])
    _leave(code)


def serve(lines: Iterable[dict[str, Any]], notes: TextIO) -> bool:
    """Make a W&B run of lines.

    Parameters
    ----------
    lines
        `start` first, then `report` and `sample` in order of step, then `finish`, which lacks where the run was killed.
    notes
        Takes lines for people.

    Returns
    -------
    Whether the lines came to their `finish`.
    """
    run: Any = None
    table: list[list[Any]] = []
    for line in lines:
        if line["kind"] == "start":
            run = _begin(line)
            online = line["mode"] == "online"
            _note(notes, run.url if online else f"offline; send it later with `wandb sync {Path(run.dir).parent}`")
        elif line["kind"] == "report":
            run.log(line["values"], step=line["step"])
        elif line["kind"] == "sample":
            table.append([line["step"], line["prompt"], line["text"]])
            run.log(_samples(table), step=line["step"])
        elif line["kind"] == "finish":
            run.summary.update({**line["summary"], "status": line["status"]})
            run.finish(exit_code=int(line["status"] == "failed"))
            return True
    if run is not None:
        run.finish(exit_code=1)
    return False


def send(directory: Path, mode: str = "online") -> int:
    """Send the numbers of a run's local record to W&B; rows that the server has are skipped there.

    Parameters
    ----------
    directory
        The run's directory.
    mode
        `online`, or `offline` to write what `wandb sync` sends.

    Returns
    -------
    The exit code: 0 when all is sent.
    """
    path = directory / "wandb" / "run.json"
    if not path.exists():
        print(f"got {directory}, which has no wandb/run.json; expected a run that was mirrored to W&B", file=sys.stderr)  # noqa: T201
        return 2
    about = json.loads(path.read_text(encoding="utf-8"))
    start = {**about, "kind": "start", "mode": mode, "directory": str(directory.resolve())}
    finish = [{**about, "kind": "finish"}] if "status" in about else []  # a run that was killed has none
    serve([start, *_recorded(directory), *finish], sys.stdout)
    return 0


def _recorded(directory: Path) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for name in ("timings.jsonl", "metrics.jsonl"):
        for row in read(directory / name):
            rows.setdefault(row["step"], {}).update(row)
    return [{"kind": "report", "step": step, "values": rows[step]} for step in sorted(rows)]


def _begin(start: dict[str, Any]) -> Any:
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=60,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_save_requirements=False,
        x_disable_meta=True,  # command lines and host names can hold secrets
        x_disable_machine_info=True,
        x_disable_stats=True,
    )
    names = {name: start[name] or None for name in ("id", "name", "project", "group")}
    run = wandb.init(
        **names,
        dir=start["directory"],
        config=start["config"],
        mode=start["mode"],
        resume="allow",
        settings=settings,
        save_code=False,
    )
    for axis in ("step", "tokens"):
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def _samples(table: list[list[Any]]) -> dict[str, Any]:
    import wandb

    return {"samples": wandb.Table(columns=["step", "prompt", "text"], data=table), "step": table[-1][0]}


def _stop_service() -> None:
    """Wait for the process that wandb started, which would stay as a zombie where nobody adopts it."""
    import wandb

    wandb.teardown()


def _own_output() -> TextIO:
    """Keep standard output for notes; what wandb prints there goes to the log."""
    notes = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    return notes


def _read(lines: queue.Queue[dict[str, Any] | None], notes: TextIO) -> None:
    grace, dropped = GRACE, 0
    for text in sys.stdin.buffer:
        line = json.loads(text)
        grace = line["wait"] if line["kind"] == "finish" else grace
        try:
            lines.put_nowait(line)
        except queue.Full:
            dropped += 1
    if dropped:
        _note(notes, f"{dropped} lines were dropped while the server did not answer")
    with contextlib.suppress(queue.Full):
        lines.put(None, timeout=grace)
    time.sleep(grace)
    _leave(1)


def _note(notes: TextIO, text: str) -> None:
    with contextlib.suppress(OSError):  # the training process is gone
        notes.write(text + "\n")
        notes.flush()


def _leave(code: int) -> None:
    """End this process and all that wandb started, now."""
    sys.stderr.flush()
    if code and hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(code)


class _Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Keep what wandb starts in the group of this process, so that ending the group ends it too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "start_new_session": False})


if __name__ == "__main__":
    subprocess.Popen = _Popen  # type: ignore[misc]
    main()
