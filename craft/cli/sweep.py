"""`craft sweep`: many trials of an experiment, those of one program in one pack."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from craft import config
from craft.cli import find
from craft.cli.experiment import parse
from craft.cli.space import LISTS, read_space, whole
from craft.errors import UsageError
from craft.run import Checkpoints, Run, Samples

__all__ = ["sweep"]

_HELP = """\
usage: craft sweep EXPERIMENT SPACE [OPTIONS]
       craft sweep --resume DIR
       craft sweep show DIR
       craft sweep repair DIR

Train many trials of an experiment. Trials of one program (they differ in
learning rate, decay, dropout, seed ...) are stepped together as one pack; each
is a run like any other, in DIR/trials/NUMBER.

space
  --grid PATH=V,V ...     every combination:
                            --grid lr=0.01,0.02 model.dropout=0,0.1
  --zip PATH=V,V ...      the first values together, the second ones, and so on
  --random N PATH=R ...   N draws:
                            --random 16 lr=log:1e-3:1e-1 model.dropout=0:0.3
  --sobol N PATH=R ...    N draws that fill the space evenly
  --space FILE            the same as TOML: tables [grid], [zip], [random] and
                          [sobol] (these two with `trials`), and seeds
  --seeds N               each of them with N seeds, the same for all

options
  --pack K                trials of a pack, at most (8)
  --metric NAME           what is compared (eval/loss)
  --draw-seed S           seed of the draws (0)
  --out DIR               the sweep's directory (outputs/sweeps/NAME/UTC time)
  and the flags of the experiment and of its runs, for all trials:
  craft train EXPERIMENT --help

A trial of a sweep writes no samples and is measured on --evaluate.batches
batches, not on the whole held-out split; it is saved at its end and every
--checkpoint.minutes, or as the flags of a run say.
"""
_SINGLE = ("--seeds", "--pack", "--metric", "--draw-seed", "--out", "--resume", "--space")


def sweep(argv: Sequence[str]) -> int:
    """Run `craft sweep`."""
    if not argv or argv[0] in ("--help", "-h"):
        sys.stdout.write(_HELP)
        return 0
    if argv[0] in ("show", "repair"):
        if len(argv) != 2:
            raise UsageError(f"got {' '.join(argv[1:]) or 'nothing'}; expected one directory: craft sweep {argv[0]} DIR")
        return (_show if argv[0] == "show" else _repair)(Path(argv[1]))
    lists, single, rest = _split(argv)
    if "--resume" in single:
        if rest or lists or len(single) > 1:
            raise UsageError("got --resume with other flags; a sweep is gone on with as it was begun: craft sweep --resume DIR")
        return _go_on(Path(single["--resume"]))
    if not rest or rest[0].startswith("-"):
        raise UsageError("got no experiment to sweep; name one: craft sweep char_1m --grid lr=0.01,0.02")
    return _start(rest[0], lists, single, rest[1:])


def _split(argv: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Part the sweep's own flags from those of the experiment and its runs."""
    lists: dict[str, list[str]] = {}
    single: dict[str, str] = {}
    rest: list[str] = []
    joined = tuple(f"{flag}=" for flag in _SINGLE)
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith(joined) else [word])]
    while words:
        word = words.pop(0)
        if word not in (*LISTS, *_SINGLE):
            rest.append(word)
            continue
        taken: list[str] = []
        while words and not words[0].startswith("--") and (word in LISTS or not taken):
            taken.append(words.pop(0))
        if not taken:
            raise UsageError(f"got {word} without a value; craft sweep --help shows what it takes")
        if word in LISTS:
            lists.setdefault(word, []).extend(taken)
        else:
            single[word] = taken[0]
    return lists, single, rest


def _start(named: str, lists: Mapping[str, list[str]], single: Mapping[str, str], rest: Sequence[str]) -> int:
    from craft.sweep.control import begin

    module = find.find(named)
    cls = find.experiment_class(module)
    experiment, run = parse(cls, rest, getattr(module, "PRESETS", {}), f"craft sweep {named}")
    if run.compile == "block":
        raise UsageError("got --compile block for a sweep, whose packs have no blocks of their own; take step, none or auto")
    pack = whole(single.get("--pack", "8"), "--pack")
    if pack < 1:
        raise UsageError(f"got --pack {pack}; expected 1 or more trials")
    name, stamp = find.name_of(cls), time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    out = Path(single["--out"]) if "--out" in single else Path("outputs", "sweeps", name, stamp)
    plan = {
        "experiment": named,
        "name": name,
        "values": config.to_dict(experiment),
        "run": config.to_dict(_trial_run(run, experiment)),
        "pack": pack,
        "metric": single.get("--metric", "eval/loss"),
    }
    begin(out, plan, read_space(experiment, lists, single)).close()
    return _go_on(out)


def _trial_run(run: Run, experiment: Any) -> Run:
    """Return how a trial runs: without what is for people who look at one run, unless it is asked for."""
    changes: dict[str, Any] = {"out": None, "evaluate": attrs.evolve(run.evaluate, whole=False)}
    if run.sample == Samples():
        changes["sample"] = Samples(tokens=0)
    if run.checkpoint == Checkpoints():
        changes["checkpoint"] = Checkpoints(every=getattr(experiment, "steps", 0))
    return attrs.evolve(run, **changes)


def _go_on(directory: Path) -> int:
    from craft.sweep.control import JOURNAL, Sweep
    from craft.sweep.journal import Journal

    with Journal(directory / JOURNAL) as journal:
        plan, number = journal.plan, len(journal.trials())
    cls = find.experiment_class(find.find(plan["experiment"]))
    experiment, run = config.from_dict(cls, plan["values"]), config.from_dict(Run, plan["run"])
    _say(f"{plan['name']}: {number} trial{'s' * (number > 1)} in {directory}")
    signal = Sweep(directory, experiment, run, plan["name"], plan["pack"], _say, _watch(experiment)).go()
    _clear()
    code = _show(directory)
    if signal:
        sys.stdout.write(f"\nStopped. Go on with\n  craft sweep --resume {directory}\n")
        return 128 + signal
    return code


def _show(directory: Path) -> int:
    """Print what a sweep has found; 1 if a trial has failed."""
    from craft.sweep.control import JOURNAL, trial_directory
    from craft.sweep.journal import Journal
    from craft.sweep.table import order, settings, table

    with Journal(directory / JOURNAL) as journal:
        plan, rows = journal.plan, journal.trials()
    metric = plan["metric"]
    sys.stdout.write("\n\n".join(part for part in (table(rows, metric), settings(rows, metric)) if part) + "\n")
    failed = [row for row in rows if row.status == "failed"]
    for row in failed:
        sys.stdout.write(f"\ntrial {row.number} failed: {row.error.strip().splitlines()[-1]}\n")
    known = {name for row in rows for name in row.result}
    if known and metric not in known:
        raise UsageError(f"got the metric {metric}, which no trial has reported; expected one of {', '.join(sorted(known))}")
    done = [row for row in rows if row.status == "finished" and math.isfinite(row.result.get(metric, math.nan))]
    if done:
        best = order(done, metric)[0]
        place = trial_directory(directory, best.number)
        sys.stdout.write(f"\nThe best is trial {best.number}, a run as any other; train it anew, or longer, with\n")
        sys.stdout.write(f"  craft train {plan['experiment']} --config {place / 'config.json'}\n")
    return 1 if failed else 0


def _repair(directory: Path) -> int:
    from craft.sweep.control import JOURNAL
    from craft.sweep.repair import recover

    place = directory / JOURNAL
    if not place.is_file():
        raise UsageError(f"got {directory} as a sweep, but it has no {JOURNAL}; give a sweep's directory")
    target, number, ended = recover(place)
    sys.stdout.write(f"{number} trials, {ended} of them ended, were read into {target}; to go on with it:\n")
    sys.stdout.write(f"  mv {target} {place} && craft sweep --resume {directory}\n")
    return 0


def _say(text: str) -> None:
    if text:
        _clear()
        sys.stderr.write(f"{text}\n")


def _watch(experiment: Any) -> Callable[[int, dict[int, dict[str, float]]], None]:
    """Show how far the pack is, a few times a second, on a terminal."""
    steps, last = getattr(experiment, "steps", 0), [0.0]

    def watch(step: int, numbers: dict[int, dict[str, float]]) -> None:
        if not sys.stderr.isatty() or time.monotonic() - last[0] < 0.25:
            return
        last[0] = time.monotonic()
        losses = sorted(one["loss"] for one in numbers.values() if "loss" in one)
        shown = f"loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
        sys.stderr.write(f"\r\033[Kstep {step}/{steps}  {len(numbers)} trials  {shown}")
        sys.stderr.flush()

    return watch


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
