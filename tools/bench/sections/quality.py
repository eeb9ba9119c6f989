"""Time to quality: tiny Shakespeare to a validation loss of 1.88, from the birth of the process with empty caches.

Craft trains by its command line. The plain loop trains by the recipe that nanoGPT gives for CPUs (block_size 64, batch 12,
4 layers, 4 heads, width 128, 2000 iterations). Both are judged on the same characters, those between 90 and 95 % of the text,
all of them. After the clock has stopped the last twentieth is measured too: nanoGPT judges by the whole last tenth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.cases import Case
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun
from tools.bench.session import Session

__all__ = ["GOAL", "RECIPE", "run", "tokens"]

GOAL = 1.88
"""Nats a character on the whole validation split."""
RECIPE = "--context 64 --batch 24 --steps 200 --lr 0.05 --compile none"
"""Craft's recipe, as flags of experiments/char_1m.py, chosen on the training split alone: of three lengths the longest that
fits into the time, of five batches and rates the best."""
_ENDS = "--evaluate.every 1000000 --checkpoint.every 1000000 --sample.tokens 1 --track.wandb off"
_NANO = {"updates": 2000, "every": 250, "dropout": 0.0, "goal": GOAL}


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Train with five seeds, Craft and the plain loop in turns."""
    if session.text is None:
        yield "not_run", "no text was given (--text PATH of tiny Shakespeare)"
        return
    folder = session.out / "tokens"
    vocabulary = tokens(session.text.read_text(encoding="utf-8"), folder)
    case = Case("nano", 4, 128, 4, context=64, batch=12, vocabulary=vocabulary)
    seeds = range(1 if session.quick else 5)
    for seed in seeds:
        plans = {f"craft seed {seed}": None, f"plain seed {seed}": Contestant("plain", "eager", "bf16")}
        if seed == 0 and not session.quick:
            plans["plain compiled seed 0"] = Contestant("plain", "compiled", "bf16")
            plans["plain fp32 seed 0"] = Contestant("plain", "eager", "fp32")
        for name, one in plans.items():
            if name not in done and session.takes(name.split()[0]):
                session.say(f"quality: {name}")
                try:
                    yield name, _craft(session, seed) if one is None else _plain(session, one, case, folder, seed)
                except NotRun as reason:
                    yield name, {"not_run": str(reason)}


def tokens(text: str, folder: Path) -> int:
    """Write the first nine tenths and the two twentieths after them as ids; return the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(set(text))
    number = {letter: place for place, letter in enumerate(letters)}
    ids = np.array([number[letter] for letter in text], np.int64)
    held = round(len(ids) * 0.05)
    np.save(folder / "train.npy", ids[: len(ids) - 2 * held])
    np.save(folder / "validation.npy", ids[len(ids) - 2 * held : len(ids) - held])
    np.save(folder / "test.npy", ids[len(ids) - held :])
    return len(letters)


def _craft(session: Session, seed: int) -> dict[str, Any]:
    with session.empty() as folder:
        args = ["-m", "experiments.char_1m", "--data.source", str(session.text), "--seed", str(seed), *RECIPE.split()]
        args += ["--threads", str(session.threads), "--out", str(folder / "run"), *_ENDS.split()]
        seconds = session.program(args, caches=folder / "caches").seconds
        rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        last = ["-m", "craft", "evaluate", str(folder / "run"), "--split", "test", "--json"]
        test = json.loads(session.program(last, caches=folder / "caches").output.strip().splitlines()[-1])["loss"]
    loss = next(row["eval/loss"] for row in reversed(rows) if "eval/loss" in row)
    return {"seconds": seconds, "loss": loss, "reached": loss <= GOAL, "updates": rows[-1]["step"], "test": test}


def _plain(session: Session, one: Contestant, case: Case, folder: Path, seed: int) -> dict[str, Any]:
    options = {**_NANO, "seed": seed, "tokens": str(folder)}
    with session.empty() as caches:
        worker = session.worker(one, case, caches=caches, job="quality", options=options)
        try:
            answer = worker.hear(3600)
            seconds = time.monotonic() - worker.began
        finally:
            worker.end()
    return {**answer, "seconds": seconds - answer["evaluating"]}
