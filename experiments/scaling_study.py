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

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
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


def _budgets(instance: Any, attribute: Any, value: str) -> None:
    _plan(value)


@attrs.frozen
class Study:
    """Train models of several sizes and kinds of token with several budgets, and fit a law to them."""

    plan: str = attrs.field(default="4e12:100k,300k,1m 1.6e13:100k,300k,1m,3m 6.4e13:300k,1m,3m 1.3e14:3m", validator=_budgets)
    """Budgets in floating-point operations, each with the sizes that are trained with it; the largest one is predicted."""
    kinds: str = "char,subword"
    """Kinds of token: char, subword or both."""
    seeds: int = 1
    """Seeds of every run but those of the largest budget, which have one."""
    source: str = "python"
    """The text."""
    division: Literal["hash", "contiguous"] = "hash"
    """Which documents are held out: by their hash, so that every package is on both sides, or the last ones."""
    batch: int = 12
    """Samples of one update."""
    context: int = 256
    """Length of one sample, tokens."""
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
        return f"{self.kind}-{self.size}-{self.budget:.1e}-seed{self.seed}".replace("+", "")


def _plan(text: str) -> dict[float, list[str]]:
    try:
        found = {float(word.split(":")[0]): word.split(":")[1].split(",") for word in text.split()}
    except (ValueError, IndexError) as error:
        raise UsageError(f"got the plan {text!r}; expected budgets and sizes, such as '4e12:100k,1m 1.6e13:1m'") from error
    unknown = sorted({size for sizes in found.values() for size in sizes} - set(SHAPES))
    if unknown or not found:
        raise UsageError(f"got the sizes {', '.join(unknown) or 'none'}; expected some of {', '.join(SHAPES)}")
    return found


def rows(study: Study) -> Iterator[Row]:
    """List the runs, the cheapest first."""
    plan = _plan(study.plan)
    for budget in sorted(plan):
        largest = budget == max(plan)
        for kind in study.kinds.split(","):
            if kind not in KINDS:
                raise UsageError(f"got the kind {kind!r}; expected some of {', '.join(KINDS)}")
            yield from (
                Row(kind, size, budget, seed, largest) for size in plan[budget] for seed in range(1 if largest else study.seeds)
            )


def experiment(study: Study, row: Row) -> Char1M:
    """Describe a run: as many updates as the budget pays for."""
    width, depth = SHAPES[row.size]
    pattern = (Attention(heads=width // _HEAD), FeedForward())
    model = Model(width, pattern, depth, tied=row.kind == "subword", tuned_width=128)
    text = Text(source=study.source, tokenizer=KINDS[row.kind], division=study.division)
    opened = text.open(context=study.context, batch=study.batch, seed=row.seed)
    flops = model.flops(model.build(opened.tokenizer.size).spec, study.context) * opened.tokens
    steps = max(1, round(row.budget / flops))
    if opened.epochs(steps) > 1:
        raise UsageError(
            f"{row.name} goes {opened.epochs(steps):.1f} times through {study.source}; give more text or less compute"
        )
    return Char1M(steps=steps, batch=study.batch, context=study.context, seed=row.seed, model=model, data=text)


def train(study: Study, row: Row) -> None:
    """Train one run in a process of its own, or go on with it."""
    place = study.out / "runs" / row.name
    if place.is_dir() and result(study, row) is not None:
        return
    study.out.joinpath("runs").mkdir(parents=True, exist_ok=True)
    described = study.out / "runs" / f"{row.name}.json"
    store.write_json(described, config.to_dict(experiment(study, row)))
    flags = ["--config", described, "--out", place, "--resume", "auto", "--track.group", study.out.name]
    ended = subprocess.run([sys.executable, "-m", "experiments.char_1m", *map(str, flags)], check=False)
    if ended.returncode:
        raise UsageError(f"{row.name} ended with {ended.returncode}; the same command goes on with it")


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
    for number, row in enumerate(planned, 1):
        if not study.only_report:
            sys.stdout.write(f"\n== {number} of {len(planned)}: {row.name}\n")
            sys.stdout.flush()
            train(study, row)
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
