"""What improves as models grow and what falls apart as they shrink: characters and subwords on the same bytes and compute.

For each kind of token, models of several widths are trained with each of several budgets of floating-point operations, on
the Python sources of all installed packages, with one learning rate that the widths' multipliers carry over. Embeddings and
heads are counted apart, losses are compared in bits a byte, and no run goes through its text more than once. A law of size
and data is fitted to all but the largest budget, predicts it, and the page says what it got wrong.

What is there already is not trained again: the same command goes on, and at the end writes study.json, study.md, the figures
and compare.html.

Run: python -m experiments.scaling_study --out outputs/scaling
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import attrs

from craft import config, report, store
from craft.cli.flags import parse_flags
from craft.cli.guard import guarded
from craft.data import Text
from craft.errors import UsageError
from craft.mixers import Attention, FeedForward
from craft.models import Sequence as Model
from craft.report import picture
from experiments import scaling_report
from experiments.char_1m import Char1M

__all__ = ["Row", "Study", "result", "rows"]

SHAPES = {"100k": (64, 2), "300k": (96, 3), "1m": (128, 4), "3m": (192, 6), "10m": (384, 6), "100m": (768, 12)}
"""Width and depth; the names are about the parameters without embedding and head."""
KINDS = {"char": "char", "subword": "bpe:1024"}
_HEAD = 32


def _planned(instance: Any, attribute: Any, value: str) -> None:
    _plan(value)


@attrs.frozen
class Study:
    """Train models of several sizes and kinds of token with several budgets, and fit a law to them."""

    plan: str = attrs.field(
        default="4e12:100k,300k,1m*3 1.6e13:100k,300k,1m,3m*2 6.4e13:300k,1m,3m 1.28e14:10m", validator=_planned
    )
    """Budgets in floating-point operations, each with the sizes that are trained with it, and `*3` for three seeds; the largest
    budget is predicted."""
    kinds: str = "char,subword"
    """Kinds of token: char, subword or both."""
    source: str = "python"
    """The text."""
    split: str = "0.99,0.005,0.005"
    """Shares of the text for training, validation and test."""
    division: Literal["hash", "contiguous"] = "hash"
    """Which documents are held out: by their hash, so that every package is on both sides, or the last ones."""
    batch: int = 12
    """Samples of one update."""
    context: int = 256
    """Length of one sample, tokens."""
    jobs: int = attrs.field(default=1, validator=config.at_least(1))
    """Runs at a time; each has its share of the cores, and small models leave cores idle when they have several."""
    out: Path = Path("outputs/scaling")
    """Directory of the runs and of what is found."""
    only_report: bool = False
    """Train nothing: report what is there."""
    debug: bool = False
    """Show the whole traceback of an error."""


@attrs.frozen
class Row:
    """One run of the study."""

    kind: str
    """Kind of token."""
    size: str
    """Name of the shape."""
    budget: float
    """Floating-point operations."""
    seed: int
    """Seed."""
    held_out: bool
    """Whether it is predicted, not fitted."""

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"{self.kind}-{self.size}-{self.budget:.2e}-seed{self.seed}".replace("+", "")


def _plan(text: str) -> dict[float, tuple[list[str], int]]:
    """Read a plan: sizes and number of seeds by budget."""
    found = {}
    try:
        for word in text.split():
            budget, sizes = word.split(":")
            names, _, seeds = sizes.partition("*")
            found[float(budget)] = names.split(","), int(seeds or 1)
    except ValueError as error:
        raise UsageError(f"got the plan {text!r}; expected budgets and sizes, such as '4e12:100k,1m*3 1.6e13:1m'") from error
    unknown = sorted({size for sizes, _ in found.values() for size in sizes} - set(SHAPES))
    if unknown or not found:
        raise UsageError(f"got the sizes {', '.join(unknown) or 'none'}; expected some of {', '.join(SHAPES)}")
    bad = [budget for budget, (_, seeds) in found.items() if seeds < 1 or not 0 < budget < math.inf]
    if bad:
        raise UsageError(f"got the budget {bad[0]:g} for {found[bad[0]][1]} seeds; expected a positive budget, and a seed")
    return found


def rows(study: Study) -> Iterator[Row]:
    """List the runs, the cheapest first."""
    plan = _plan(study.plan)
    kinds = study.kinds.split(",")
    for kind in set(kinds) - set(KINDS):
        raise UsageError(f"got the kind {kind!r}; expected some of {', '.join(KINDS)}")
    for budget, (sizes, seeds) in sorted(plan.items()):
        places = ((seed, size, kind) for seed in range(seeds) for size in sizes for kind in kinds)
        yield from (Row(kind, size, budget, seed, budget == max(plan)) for seed, size, kind in places)


def experiment(study: Study, row: Row) -> Char1M:
    """Describe a run: as many updates as the budget pays for."""
    width, depth = SHAPES[row.size]
    pattern = (Attention(heads=width // _HEAD), FeedForward())
    model = Model(width, pattern, depth, tied=row.kind == "subword", tuned_width=128)
    text = Text(source=study.source, tokenizer=KINDS[row.kind], split=study.split, division=study.division)
    opened = text.open(context=study.context, batch=study.batch, seed=row.seed)
    flops = model.flops(model.build(opened.tokenizer.size).spec, study.context) * opened.tokens
    steps = max(1, round(row.budget / flops))
    if opened.epochs(steps) > 1:
        raise UsageError(
            f"{row.name} goes {opened.epochs(steps):.1f} times through {study.source}; give more text or less compute"
        )
    return Char1M(steps=steps, batch=study.batch, context=study.context, seed=row.seed, model=model, data=text)


def describe(study: Study, row: Row) -> None:
    """Write the configuration of a run, which `--config` takes.

    Raises
    ------
    UsageError
        If a run of this name was made with another one.
    """
    place, values = study.out / "runs" / f"{row.name}.json", config.to_dict(experiment(study, row))
    if place.is_file() and (former := json.loads(place.read_text(encoding="utf-8"))) != values:
        other = sorted(name for name in {*former, *values} if former.get(name) != values.get(name))
        raise UsageError(f"got {study.out}, where {row.name} has another {' and '.join(other)}; name another --out")
    place.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(place, values)


def train(study: Study, missing: Sequence[Row]) -> None:
    """Train runs, each in processes of its own, or go on with them; the others go on where one fails.

    Raises
    ------
    UsageError
        At the end, if some failed, with the first one's name and what it said last.
    """
    began, failed = time.monotonic(), []
    with ThreadPoolExecutor(study.jobs) as pool:
        try:
            rows = {pool.submit(_train, study, row): row.name for row in missing}
            for number, done in enumerate(as_completed(rows), 1):
                name, problem, minutes = rows[done], done.result(), (time.monotonic() - began) / 60
                _say(f"{number} of {len(missing)}  {name}  {problem or 'finished'}  after {minutes:.1f} min")
                failed += [f"{name} {problem}"] if problem else []
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those that run save themselves: they get the same signal
            raise
    if failed:
        raise UsageError(f"{len(failed)} of {len(missing)} runs failed, the first: {failed[0]}; the same command goes on")


def _train(study: Study, row: Row) -> str:
    """Train one run and judge it in detail; return what went wrong."""
    place = study.out / "runs" / row.name
    log = Path(f"{place}.txt")
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // study.jobs))]
    run = ["--config", f"{place}.json", "--out", str(place), "--resume", "auto", "--track.group", study.out.name]
    for command in (
        ["-m", "experiments.char_1m", *run],
        ["-m", "craft", "evaluate", str(place), "--detail", "--precision", "auto"],
    ):
        with log.open("a", encoding="utf-8") as stream:
            done = subprocess.run([sys.executable, *command, *threads], stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            last = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
            return f"ended with {done.returncode} ({last}; all of it is in {log})"
    return ""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def result(study: Study, row: Row) -> dict[str, Any] | None:
    """Return what a run came to; None where it is not finished."""
    found = scaling_report.measured(study.out / "runs" / row.name)
    return found and attrs.asdict(row) | found


def write(study: Study, planned: Sequence[Row]) -> str:
    """Write what was found so far: study.json, study.md, figures and compare.html; return study.md."""
    by_row = {row: result(study, row) for row in planned}
    found = [one for one in by_row.values() if one is not None]
    if not found:
        raise UsageError(f"got {study.out}, where no run is finished; leave --only-report out to train them")
    laws = scaling_report.summarise(found)
    figures = scaling_report.figures(found, laws)
    if importlib.util.find_spec("matplotlib") is None:
        _say("no figures: they need matplotlib, pip install 'craft[report]'")
        figures = {}
    for name, paint in figures.items():
        for kind, data in picture.drawn(paint).items():
            store.write(study.out / f"{name}.{kind}", data)
    text = scaling_report.page(f"Scaling on {study.source}", found, laws, figures)
    store.write_json(study.out / "study.json", {"runs": found, "laws": laws})
    store.write(study.out / "study.md", text)
    report.write_page([study.out / "runs" / row.name for row, one in by_row.items() if one], study.out / "compare.html")
    return text


def main(argv: Sequence[str]) -> int:
    """Train what is missing and report."""
    study = parse_flags(Study, argv, "python -m experiments.scaling_study")
    planned = list(rows(study))
    if not study.only_report:
        for row in planned:
            describe(study, row)
        missing = [row for row in planned if result(study, row) is None]
        _say(f"{len(planned)} runs, {len(missing)} to train; each writes what it says to {study.out}/runs/NAME.txt")
        train(study, missing)
    text = write(study, planned)
    _say(f"\n{text}\n{study.out}: study.md and its figures; compare.html has the curves and samples")
    return 0


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
