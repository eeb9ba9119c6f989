"""What is broken: a small run with all that a next step can depend on, a preparation; and processes that can be killed."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from craft import data, optim, schedule
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.run import Checkpoints, Evaluations, Run, Samples, Track
from craft.train import train
from experiments.char_1m import Char1M

__all__ = ["CRASHED", "LONG", "RUN", "Subject", "child", "ended", "experiment", "go", "reference"]

CRASHED = 70
"""Exit code of a child that raised."""

_PROSE = "the cat sat on the mat; a dog ran far away.\n"


def experiment(folder: Path, steps: int = 15) -> Char1M:
    """Describe the run: dropout, parts of the batch, warm-up, an average of the weights, and over three epochs in 15 steps."""
    text = folder / "text.txt"
    if not text.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text.write_text(_PROSE * 60, encoding="utf-8")
    return Char1M(
        lr=0.02,
        steps=steps,
        batch=16,
        context=32,
        accumulate=2,
        model=Sequence(width=16, depth=1, dropout=0.2, pattern=(Attention(heads=2), FeedForward(expand=2.0))),
        optimizer=optim.Muon(average=0.9),
        schedule=schedule.Schedule(warmup=0.3),
        data=data.Text(source=str(text), split="0.6,0.35,0.05"),
    )


def go(folder: Path, out: Path, steps: int = 15, *, resume: bool = True) -> None:
    """Train the run into `out`, or go on with what is there; eager, on one thread."""
    torch.set_num_threads(1)
    run = Run(
        out=out,
        resume="auto" if resume else "",
        device="cpu",
        precision="fp32",
        compile="none",
        threads=1,
        checkpoint=Checkpoints(every=4, keep=2, best="eval/loss"),
        evaluate=Evaluations(every=3, batches=2),
        sample=Samples(every=6, tokens=4),
        track=Track(wandb="off", every=1),
    )
    train(experiment(folder, steps).build(), run, name="char_1m", console=False)


def ended(out: Path) -> dict[str, str]:
    """Return the SHA-256 of what must be the same however often a run was broken: its last state, reports and samples."""
    places = [*sorted(out.glob("checkpoints/step-*"))[-1:]]
    files = [path for place in places for path in sorted(place.iterdir())]
    files += [out / name for name in ("metrics.jsonl", "samples.txt", "tokenizer.json")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


@attrs.frozen
class Subject:
    """What is broken and gone on with."""

    go: Callable[[Path, Path], None]
    """(folder of what it needs, its own directory): do it, or go on with what is there."""
    ended: Callable[[Path], dict[str, str]]
    """Its directory -> hashes of what must be the same however often it was broken."""
    pause: float
    """Seconds after which it is killed at the latest."""


RUN, LONG = Subject(go, ended, 0.9), Subject(partial(go, steps=60), ended, 0.9)
"""The run of 15 steps, and one of 60: long enough to be killed again and again."""


def reference(folder: Path, subject: Subject) -> dict[str, str]:
    """Do what nobody breaks, and return what it ended with."""
    out = folder / "whole"
    code = os.waitstatus_to_exitcode(os.waitpid(child(lambda: subject.go(folder, out)), 0)[1])
    if code:
        raise RuntimeError(f"what nobody broke ended with {code}")
    return subject.ended(out)


def child(act: Callable[[], Any]) -> int:
    """Do something in a process of its own, which is forked and has all imports; return its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = CRASHED
    try:
        act()
        code = 0
    except BaseException:  # noqa: BLE001 - a child has nobody above it to tell
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
