"""The commands that use a finished run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import tyro

from craft import evaluate, generate, store
from craft.cli import tables
from craft.cli.flags import parse_flags
from craft.cli.renew import renew
from craft.cli.stored import Stored, load
from craft.engine import compiler_missing
from craft.errors import UsageError
from craft.writing import worth_compiling, write

__all__ = ["evaluate_run", "generate_text"]


@attrs.frozen
class Generate:
    """Let the model of a run write on from a prompt, to the terminal as it goes."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory, such as outputs/char_1m/20260101-120000."""
    prompt: str = "\n"
    """Text to go on from; `-` reads it from standard input."""
    tokens: int = 200
    """Tokens to write."""
    sampling: Annotated[generate.Sampling, tyro.conf.arg(name="")] = attrs.field(factory=generate.Sampling)
    """How the next token is drawn."""
    checkpoint: str = "last"
    """Which state: last, best (where the run has --checkpoint.best), or the number of a step."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Type of the weights and activations; bf16 is twice as fast for large models that are compiled."""
    compile: Literal["auto", "none", "step"] = "auto"
    """Whether reading one token is compiled: `auto` weighs the wait, once about 12 s, against the length of the text."""
    experiment: str = ""
    """File of an experiment of your own; needed only where the run was made by a file outside experiments/."""
    debug: bool = False
    """Show the whole traceback of an error."""


def generate_text(argv: Sequence[str]) -> int:
    """Run `craft generate`."""
    args: Generate = parse_flags(Generate, argv, "craft generate")
    if args.tokens < 1:
        raise UsageError(f"got --tokens {args.tokens}; expected at least 1")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    stored = load(args.run, experiment=args.experiment, which=args.checkpoint, device=args.device, precision=args.precision)
    params = stored.task.params(stored.state)
    missing = compiler_missing(stored.engine.device)
    if missing and args.compile == "step":
        raise UsageError(f"got --compile step, but {missing}; install one, or take --compile none")
    long = stored.task.model is not None and worth_compiling(stored.task.model.spec, args.tokens)
    compiled = args.compile == "step" or (args.compile == "auto" and long and not missing)
    say = _status if sys.stderr.isatty() else None
    pieces = write(stored.task, params, stored.engine, prompt, args.tokens, args.sampling, compiled=compiled, say=say)
    first = next(pieces)  # a prompt that cannot be encoded is refused before anything is printed
    if say is not None and compiled:
        _status("")
    sys.stdout.write(prompt + first)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


@attrs.frozen
class Evaluate:
    """Measure the model of a run on a whole split of its data, or on questions."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    split: Literal["validation", "test", "train"] = "validation"
    """Which piece of the data."""
    detail: bool = False
    """Also the loss by position and by frequency, and the calibration; written to evaluation.json of the run, too."""
    task: Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")] = None
    """Questions instead of the data, a line each: {"context": "...", "choices": ["...", "..."], "answer": 0}, or
    {"prompt": "...", "answer": "..."}."""
    skip_bad: bool = False
    """Leave out questions that cannot be used instead of refusing them all."""
    harness: Annotated[str, tyro.conf.arg(metavar="TASK,TASK")] = ""
    """Tasks of EleutherAI's lm-evaluation-harness instead of the data; needs the extra `eval`."""
    harness_tasks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where tasks of your own for --harness are described, in YAML files."""
    checkpoint: str = "last"
    """Which state: last, best (where the run has --checkpoint.best), or the number of a step."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Type of the activations."""
    threads: int = 0
    """CPU threads; 0: one a core."""
    json: bool = False
    """Print JSON."""
    experiment: str = ""
    """File of an experiment of your own; needed only where the run was made by a file outside experiments/."""
    debug: bool = False
    """Show the whole traceback of an error."""


def evaluate_run(argv: Sequence[str]) -> int:
    """Run `craft evaluate`."""
    args: Evaluate = parse_flags(Evaluate, argv, "craft evaluate")
    _check(args)
    stored = load(
        args.run,
        experiment=args.experiment,
        which=args.checkpoint,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
    )
    if args.task is not None:
        return _questions(args, stored)
    if args.harness:
        return _harness(args, stored)
    return _split(args, stored)


def _check(args: Evaluate) -> None:
    """Refuse what does not go together before anything is loaded."""
    chosen = [flag for flag, on in (("--detail", args.detail), ("--task", args.task), ("--harness", args.harness)) if on]
    if len(chosen) > 1:
        raise UsageError(f"got {' and '.join(chosen)}; give one of them at a time")
    if args.skip_bad and args.task is None:
        raise UsageError("got --skip-bad without --task; it leaves out questions of that file")
    if args.harness_tasks is not None and not args.harness:
        raise UsageError("got --harness-tasks without --harness; name the tasks that are to be run: --harness TASK,TASK")
    if args.harness:
        evaluate.require_harness()


def _split(args: Evaluate, stored: Stored) -> int:
    task = stored.task
    if task.evaluation is None:
        raise UsageError(f"the experiment of {args.run} has no evaluation")
    was = stored.record.data["data"]["fingerprint"]
    if task.data.fingerprint != was:
        raise UsageError(
            f"{args.run} was trained on data {was[:12]}, but the data here is {task.data.fingerprint[:12]} "
            f"({json.dumps(task.data.describe())}); give it the data it was trained on"
        )
    shown = _dot if sys.stderr.isatty() else None
    values = evaluate.measure(task.evaluation, stored.state, stored.engine, split=args.split, progress=shown)
    found = {}
    if args.detail:
        found = {"detail": evaluate.detail(task, stored.state, stored.engine, split=args.split, progress=shown)}
    _clear()
    text = f"{args.run}, step {stored.step}, {args.split} split\n{tables.values(values)}"
    text += tables.detail(found["detail"]) if found else ""
    _print(args, {"split": args.split, "step": stored.step, **values, **found}, text)
    if found:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        _keep(args, {"step": stored.step, "precision": args.precision, **finite, **found})
    return 0 if all(math.isfinite(value) for value in values.values()) else 1


def _keep(args: Evaluate, found: dict[str, Any]) -> None:
    """Write what was found into the run, beside what was found of other splits."""
    place = args.run / "evaluation.json"
    former = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    store.write_json(place, {**former, args.split: found})
    renew(args.run)
    if not args.json:
        sys.stdout.write(f"\nall of it is in {place}, and in report.html beside it\n")


def _questions(args: Evaluate, stored: Stored) -> int:
    assert args.task is not None
    task = stored.task
    if task.tokenizer is None:
        raise UsageError(f"the model of {args.run} is not one of text; questions need a model of text")
    questions = evaluate.read_questions(args.task, task.tokenizer, skip_bad=args.skip_bad)
    if questions.skipped:
        number = len(questions.skipped)
        sys.stderr.write(f"left out {number} bad line{'s' * (number > 1)}, the first: {questions.skipped[0]}\n")
    params, tell = task.params(stored.state), _status if sys.stderr.isatty() else None
    found = evaluate.answer_questions(task, params, stored.engine, questions, tell)
    _clear()
    text = f"{args.run}, step {stored.step}, {args.task}\n{tables.answers(found)}"
    _print(args, {"task": str(args.task), "step": stored.step, **found}, text)
    return 0


def _harness(args: Evaluate, stored: Stored) -> int:
    task, tell = stored.task, _status if sys.stderr.isatty() else None
    names = [name.strip() for name in args.harness.split(",") if name.strip()]
    found = evaluate.harness(task, task.params(stored.state), stored.engine, names, args.harness_tasks, tell)
    _clear()
    text = f"{args.run}, step {stored.step}, {args.harness}\n{tables.harness(found)}"
    _print(args, {"harness": args.harness, "step": stored.step, **found}, text)
    return 0


def _status(text: str) -> None:
    sys.stderr.write(f"\r\033[K{text}")
    sys.stderr.flush()


def _dot(done: int) -> None:
    _status(f"{done} batches")


def _clear() -> None:
    if sys.stderr.isatty():
        _status("")


def _print(args: Evaluate, found: dict[str, Any], text: str) -> None:
    sys.stdout.write(json.dumps({"run": str(args.run), **found}) + "\n" if args.json else text)
