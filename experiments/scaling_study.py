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

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from craft.report import scaling
from experiments.char_1m import Char1M

__all__ = ["Row", "Study", "result", "rows", "summarise"]

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
        raise UsageError(
            f"got the budget {bad[0]:g} with {found[bad[0]][1]} seeds; expected a positive budget and at least 1 seed"
        )
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
            for number, (row, problem) in enumerate(pool.map(lambda row: (row, _train(study, row)), missing), 1):
                minutes = (time.monotonic() - began) / 60
                _say(f"{number} of {len(missing)}  {row.name}  {problem or 'finished'}  after {minutes:.1f} min")
                failed += [f"{row.name} {problem}"] if problem else []
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
    """Return what a finished run came to; None where it is not finished."""
    try:
        story = report.read(study.out / "runs" / row.name)
    except UsageError:
        return None
    measured = story.column("eval/bits_per_byte")
    if not story.finished or not measured:
        return None
    model, text = story.config["model"], story.config["data"]
    each = text["bytes"]["train"] / text["tokens"]["train"]
    return {
        **attrs.asdict(row),
        "parameters": model["parameters"],
        "body": model["parameters_without_embedding"],
        "flops": model["flops_per_step"] * story.steps,
        "bytes": story.rows[-1]["tokens"] * each,
        "epochs": text["epochs"],
        "seconds": story.rows[-1].get("clock/seconds", math.nan),
        "bits_per_byte": measured[-1],
    }


def summarise(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fit a law to each kind of token, and compare what it promises for the largest budget with what was measured."""
    told: dict[str, Any] = {}
    for kind in dict.fromkeys(one["kind"] for one in found):
        own = [one for one in found if one["kind"] == kind]
        fitted = [scaling.Point(one["body"], one["bytes"], one["bits_per_byte"]) for one in own if not one["held_out"]]
        try:
            law = scaling.fit(fitted)
        except UsageError as error:
            told[kind] = {"not_fitted": str(error)}
            continue
        told[kind] = {
            "law": law._asdict(),
            "runs": len(fitted),
            "predicted": [_predicted(law, fitted, one) for one in own if one["held_out"]],
        }
    return told


def _predicted(law: scaling.Law, fitted: list[scaling.Point], one: dict[str, Any]) -> dict[str, Any]:
    low, high = scaling.interval(scaling.grouped(fitted), one["body"], one["bytes"])
    promised = law.loss(one["body"], one["bytes"])
    measured = one["bits_per_byte"]
    return {
        "size": one["size"],
        "promised": promised,
        "interval": [low, high],
        "measured": measured,
        "off": promised / measured - 1,
    }


def page(study: Study, found: Sequence[dict[str, Any]], told: dict[str, Any]) -> str:
    """Write what was found as Markdown."""
    head = (
        "| tokens | size | parameters | without ends | FLOPs | MB of text | epochs | bits a byte | minutes |\n"
        + "|---" * 9
        + "|\n"
    )
    ordered = sorted(found, key=lambda one: (one["budget"], one["kind"], one["body"], one["seed"]))
    body = "".join(f"| {' | '.join(_cells(one))} |\n" for one in ordered)
    laws = "".join(_law(kind, one) for kind, one in told.items())
    return f"# Scaling on {study.source}\n\n{head}{body}\n{laws}"


def _cells(one: dict[str, Any]) -> list[str]:
    measured = f"{one['bits_per_byte']:.4f}{' (held out)' if one['held_out'] else ''}"
    sizes = [f"{one['parameters']:,}", f"{one['body']:,}", f"{one['flops']:.2g}", f"{one['bytes'] / 1e6:.1f}"]
    return [one["kind"], one["size"], *sizes, f"{one['epochs']:.2f}", measured, f"{one['seconds'] / 60:.1f}"]


def _law(kind: str, told: dict[str, Any]) -> str:
    if "not_fitted" in told:
        return f"- {kind}: no law, {told['not_fitted']}\n"
    law = scaling.Law(**told["law"])
    parts = [
        f"{math.exp(log):.3g} / {what}^{power:.3f}"
        for log, what, power in (
            (law.log_a, "N", law.alpha),
            (law.log_b, "D", law.beta),
        )
    ]
    text = f"- {kind}: bits a byte = {law.floor:.3f} + {' + '.join(parts)}"
    for one in told["predicted"]:
        low, high = one["interval"]
        text += (
            f"; {one['size']}: promised {one['promised']:.4f} (90 % of resamples: {low:.4f} to {high:.4f}), "
            f"measured {one['measured']:.4f}, off by {one['off']:+.1%}"
        )
    return text + f" ({told['runs']} runs)\n"


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
    found = [one for one in (result(study, row) for row in planned) if one is not None]
    if not found:
        raise UsageError(f"got {study.out}, where no run is finished; leave --only-report out to train them")
    told = summarise(found)
    store.write_json(study.out / "study.json", {"runs": found, "laws": told})
    store.write(study.out / "study.md", page(study, found, told))
    report.write_page([study.out / "runs" / row.name for row in planned if result(study, row)], study.out / "compare.html")
    sys.stdout.write(page(study, found, told) + f"\n{study.out}/compare.html has the curves and samples\n")
    return 0


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
