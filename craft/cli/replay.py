"""`craft replay`: a step of a stored run made again, with a change to try, or beside another run's."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro

from craft import checkpoint, config, record, track
from craft.cli.flags import parse_flags
from craft.cli.stored import build
from craft.errors import UsageError
from craft.replay import Made, Replay, first_difference
from craft.step import Task

__all__ = ["replay_run"]

_WORST = 3
_SHOWN = 60


@attrs.frozen
class Args:
    """Make a step of a run again, to the bit: what it was given, what came of it, and which samples it was worst at.

    The run goes on from its newest checkpoint before that step, or from its start. With --against, both runs are made again
    from where their records agree, until they differ.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    step: int = 0
    """The step, from 1; 0: the one that was not finite, else the last."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Also make the step with this changed, such as lr=0.01 or model.dropout=0; several: --set A=1 --set B=2."""
    against: Path | None = None
    """Another run: find the first step that differs, and what differs."""
    experiment: str = ""
    """File of an experiment of your own; needed only where the run was made by a file outside experiments/."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show the whole traceback of an error."""


def replay_run(argv: Sequence[str]) -> int:
    """Run `craft replay`."""
    args: Args = parse_flags(Args, argv, "craft replay")
    if args.against is not None and (args.step or args.set):
        raise UsageError("got --against with --step or --set; the step is what it looks for")
    return _compare(args, args.against) if args.against is not None else _step(args)


def _step(args: Args) -> int:
    task = build(record.read(args.run), args.experiment)
    step = args.step or _default(args.run)
    if not 1 <= step <= task.steps:
        raise UsageError(f"got --step {step}; expected 1 to {task.steps}, the updates of {args.run}")
    changed = _build_changed(args) if args.set else None
    place = Replay(task, args.run, step, _tell)
    place.to(step - 1)
    losses = place.losses()
    made = place.peek()
    other = None if changed is None else place.peek(changed)
    recorded = _recorded(args.run, step)
    if args.json:
        found = {
            "step": step,
            "samples": made.samples,
            "batch": made.batch,
            "metrics": made.metrics,
            "after": made.after,
            "losses": losses,
            "recorded": recorded,
        }
        print_json(found | ({} if other is None else {"changed": other.metrics, "changed_after": other.after}))
        return 0
    sys.stdout.write(f"{args.run}, step {step}, batch {made.batch}\n")
    sys.stdout.write(_metrics(made, other, recorded, " ".join(args.set)))
    sys.stdout.write(_worst(task, made, losses))
    return 0


def _default(run: Path) -> int:
    place = run / "halted.json"
    if place.is_file():
        return int(json.loads(place.read_text(encoding="utf-8"))["step"])
    found = checkpoint.find(run / record.CHECKPOINTS)
    if not found:
        raise UsageError(f"got {run}, which has no checkpoint and so no last step; name one: --step 1")
    return found[-1].step


def _build_changed(args: Args) -> Task:
    try:
        return build(_changed(args), args.experiment)
    except config.ConfigError as error:
        raise UsageError(f"got --set {' '.join(args.set)}, but {error}") from error


def _changed(args: Args) -> record.Record:
    """Return the run as if it had been started with what --set says."""
    stored = record.read(args.run)
    given = [word.partition("=") for word in args.set]
    if wrong := next((word for word, (_, equal, _) in zip(args.set, given, strict=True) if not equal), None):
        raise UsageError(f"got --set {wrong}; expected NAME=VALUE with a field of the experiment, such as lr=0.01")
    values = config.change(stored.experiment["values"], {path: config.parse_value(text) for path, _, text in given})
    return record.Record(stored.directory, {**stored.data, "experiment": {**stored.experiment, "values": values}})


def _recorded(run: Path, step: int) -> dict[str, float]:
    """Return what the record says of a step: means since the report before it."""
    rows = [row for row in track.read(run / "metrics.jsonl") if row["step"] == step]
    return {name.removeprefix("train/"): value for row in rows for name, value in row.items() if name.startswith("train/")}


def _metrics(made: Made, other: Made | None, recorded: dict[str, float], change: str) -> str:
    heads = ["", "again", *([change] if other else []), *(["recorded*"] if recorded else [])]
    wide = max(14, *(len(head) + 2 for head in heads))
    lines = ["  " + "".join(f"{head:>{wide}}" if index else f"{head:<14}" for index, head in enumerate(heads))]
    for name, value in made.metrics.items():
        cells = [
            value,
            *([other.metrics.get(name, math.nan)] if other else []),
            *([recorded[name]] if name in recorded else []),
        ]
        lines.append(f"  {name:<14}" + "".join(f"{cell:>{wide}.6g}" for cell in cells))
    if made.after is not None:
        after = [made.after, *([other.after] if other else [])]
        lines.append(f"  {'loss after':<14}" + "".join(f"{cell:>{wide}.6g}" for cell in after))
    if recorded:
        lines.append("  * the mean since the report before it")
    return "\n".join(lines) + "\n"


def _worst(task: Task, made: Made, losses: list[float]) -> str:
    if not losses:
        return f"  samples {' '.join(map(str, made.samples))}\n" if made.samples else ""
    order = sorted(range(len(losses)), key=lambda index: -losses[index] if math.isfinite(losses[index]) else -math.inf)
    mean = sum(losses) / len(losses)
    lines = [f"  worst of {len(losses)} samples, mean loss of each (of all {mean:.4f}):"]
    batch = task.data.batch(made.step - 1)
    for index in order[:_WORST]:
        text = task.tokenizer.decode(batch.inputs_BT[index].tolist()) if task.tokenizer is not None else ""
        shown = json.dumps(text, ensure_ascii=False)[1:-1][:_SHOWN]
        number = made.samples[index] if made.samples else index
        lines.append(f"  {number:>10}  {losses[index]:.4f}  {shown}")
    return "\n".join(lines) + "\n"


def _compare(args: Args, against: Path) -> int:
    runs = args.run, against
    for one, other in (runs, runs[::-1]):
        fork = record.read(one).data.get("fork")
        if fork and Path(fork["run"]).resolve() == other.resolve():
            changed = "; ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in sorted(fork["changed"].items()))
            text = f"{one} was forked from {other} after step {fork['step']}; changed: {changed or 'nothing'}"
            _say(args, text, {"step": fork["step"], "forked": str(one), "changed": fork["changed"]})
            return 1
    start, end = _agree(*(track.read(run / "metrics.jsonl") for run in runs))
    if end == 0:
        _say(args, f"the records of {args.run} and {against} agree to the bit, {start} steps", {"step": None, "agree": start})
        return 0
    places = [Replay(build(record.read(run), args.experiment), run, start + 1, _tell) for run in runs]
    first = max(place.step for place in places)
    for place in places:
        place.to(first)
    found = first_difference(places[0], places[1], end)
    if found is None:
        text = (
            f"made again, the steps to {end} are the same, though the records differ: one was made on another machine or mode"
        )
        _say(args, text, {"step": None, "agree": end})
        return 1
    here, there, what = found
    facts = {"step": here.step, "differs": what, "first": here._asdict(), "second": there._asdict()}
    shown = ", ".join(what[:4]) + (f" and {len(what) - 4} more" if len(what) > 4 else "")
    text = f"step {here.step} is the first that differs, in {shown}\n"
    for run, made in zip(runs, (here, there), strict=True):
        numbers = "  ".join(f"{name} {value:.8g}" for name, value in made.metrics.items())
        text += f"  {run}\n    {numbers}\n    batch {made.batch}, samples {' '.join(map(str, made.samples))}\n"
    _say(args, text.rstrip(), facts)
    return 1


def _agree(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return the last step that is reported in both and equal, and the first that is not; 0 where all are."""
    start = 0
    for here, there in zip(one, other, strict=False):
        if here != there:
            return start, max(here["step"], there["step"])
        start = here["step"]
    return start, 0


def _say(args: Args, text: str, facts: dict[str, Any]) -> None:
    if args.json:
        print_json(facts)
    else:
        sys.stdout.write(f"{text}\n")


def print_json(found: dict[str, Any]) -> None:
    """Print JSON in which what is not finite is text."""
    plain = {name: _plain(value) for name, value in found.items()}
    sys.stdout.write(json.dumps(plain, indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tell(text: str) -> None:
    if text:
        sys.stderr.write(f"{text}\n")
