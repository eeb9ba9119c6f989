"""The process that speaks to Weights & Biases: it reads JSON lines, and this file alone makes W&B runs.

`python -m craft.track.wandb` is started by `mirror.Wandb`; it ends soon after its input does, whatever the server does.
`push.push` serves the lines of a recorded run by the same functions.
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

from craft.track.artifact import newest
from craft.track.lines import AXES, Line, recorded

__all__ = ["main", "serve", "stop"]

CAPACITY = 100_000
"""Lines that wait while the server does not answer; more are dropped."""

GRACE = 8.0
"""Seconds to close the run in when the training process was killed."""


def main() -> None:
    """Serve the lines of standard input."""
    if hasattr(os, "nice"):
        os.nice(10)  # on a small machine the run needs every core
    notes = _own_output()
    lines: queue.Queue[Line | None] = queue.Queue(CAPACITY)
    threading.Thread(target=_read, args=(lines, notes), daemon=True).start()
    try:
        code = 0 if serve(iter(lines.get, None), notes) else 1
        stop()
    except Exception as error:  # noqa: BLE001 - whatever wandb raises becomes one line for people
        code = 1
        _note(notes, _sentence(error))
    _leave(code)


def serve(lines: Iterable[Line], notes: TextIO) -> bool:
    """Make a W&B run of lines.

    Parameters
    ----------
    lines
        `start` first, then `report` and `sample` in order of step, then `checkpoint` where it shall be uploaded, then
        `finish`, which lacks where the run was killed.
    notes
        Takes lines for people.

    Returns
    -------
    Whether the lines came to their `finish`.
    """
    run: _Run | None = None
    for line in lines:
        if line["kind"] == "start":
            run = _Run(line, notes)
        elif run is not None and run.take(line):
            return True
    if run is not None:
        run.run.finish(exit_code=1)
    return False


class _Run:
    """One run in W&B, and the table of its samples, which is logged again whenever it has grown."""

    def __init__(self, start: Line, notes: TextIO) -> None:
        self.run, self.notes = _begin(start), notes
        self.directory = Path(start["directory"])
        self.table: list[list[Any]] = []
        online = start["mode"] == "online"
        sync = f"offline; send it later with `wandb sync {Path(self.run.dir).parent}`"
        _note(notes, self.run.url if online else sync)
        for line in recorded(self.directory, start["after"]) if start["after"] else ():
            self.take(line)  # a run that goes on brings along what W&B may have missed

    def take(self, line: Line) -> bool:
        """Hand a line to W&B; return whether it was the last."""
        if line["kind"] == "report":
            self.run.log(line["values"], step=line["step"])
        elif line["kind"] == "sample":
            self.table.append([line["step"], line["prompt"], line["text"]])
            self.run.log(_samples(self.table), step=line["step"])
        elif line["kind"] == "checkpoint":
            self._upload()
        elif line["kind"] == "finish":
            self.run.summary.update({**line["summary"], "status": line["status"]})
            self.run.finish(exit_code=int(line["status"] == "failed"))
            return True
        return False

    def _upload(self) -> None:
        import wandb

        found = newest(self.directory)
        if found is None:
            _note(self.notes, "there is no checkpoint to upload")
            return
        try:
            made = wandb.Artifact(f"checkpoint-{self.run.id}", type="model", metadata={"step": found.step})
            for name, path in found.files.items():  # read where they are: a copy would take the disk twice
                made.add_file(str(path), name=name, policy="immutable", skip_cache=True)
            self.run.log_artifact(made, aliases=["latest", f"step-{found.step}"])
        except Exception as error:  # noqa: BLE001 - the numbers are worth more than the upload
            _note(self.notes, f"the checkpoint was not uploaded: {_sentence(error)}")


def stop() -> None:
    """Wait for the process that wandb started, which would stay as a zombie where nobody adopts it."""
    import wandb

    wandb.teardown()


def _begin(start: Line) -> Any:
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
        resume="allow" if start["mode"] == "online" else None,  # an offline run is whole: `wandb sync` puts it in the place
        settings=settings,
        save_code=False,
    )
    for axis in AXES:
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric=AXES[0])
    return run


def _samples(table: list[list[Any]]) -> dict[str, Any]:
    import wandb

    return {"samples": wandb.Table(columns=["step", "prompt", "text"], data=table), "step": table[-1][0]}


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _own_output() -> TextIO:
    """Keep standard output for notes; what wandb prints there goes to the log."""
    notes = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    return notes


def _read(lines: queue.Queue[Line | None], notes: TextIO) -> None:
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
