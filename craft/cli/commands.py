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

from craft import evaluate, generate
from craft.cli.stored import load
from craft.engine import compiler_missing
from craft.errors import UsageError
from craft.writing import worth_compiling, write

__all__ = ["evaluate_run", "generate_text"]


def _parse(cls: type[Any], argv: Sequence[str], prog: str) -> Any:
    return tyro.cli(cls, args=list(argv), prog=prog, description=cls.__doc__, config=(tyro.conf.FlagCreatePairsOff,))


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
    args: Generate = _parse(Generate, argv, "craft generate")
    if args.tokens < 1:
        raise UsageError(f"got --tokens {args.tokens}; expected at least 1")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    stored = load(args.run, experiment=args.experiment, device=args.device, precision=args.precision)
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
    """Measure the model of a run on a whole split of its data."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    split: Literal["validation", "test", "train"] = "validation"
    """Which piece of the data."""
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
    args: Evaluate = _parse(Evaluate, argv, "craft evaluate")
    stored = load(args.run, experiment=args.experiment, device=args.device, precision=args.precision, threads=args.threads)
    task = stored.task
    if task.evaluation is None:
        raise UsageError(f"the experiment of {args.run} has no evaluation")
    was = stored.record.data["data"]["fingerprint"]
    if task.data.fingerprint != was:
        raise UsageError(
            f"{args.run} was trained on data {was[:12]}, but the data here is {task.data.fingerprint[:12]} "
            f"({json.dumps(task.data.describe())}); give it the data it was trained on"
        )
    shown = sys.stderr.isatty()
    values = evaluate.measure(task.evaluation, stored.state, stored.engine, split=args.split, progress=_dot if shown else None)
    if shown:
        sys.stderr.write("\r\033[K")
    _print(args, stored.step, values)
    return 0 if all(math.isfinite(value) for value in values.values()) else 1


def _status(text: str) -> None:
    sys.stderr.write(f"\r\033[K{text}")
    sys.stderr.flush()


def _dot(done: int) -> None:
    sys.stderr.write(f"\r{done} batches")
    sys.stderr.flush()


def _print(args: Evaluate, step: int, values: dict[str, float]) -> None:
    if args.json:
        sys.stdout.write(json.dumps({"run": str(args.run), "split": args.split, "step": step, **values}) + "\n")
        return
    sys.stdout.write(f"{args.run}, step {step}, {args.split} split\n")
    for name, value in values.items():
        sys.stdout.write(f"  {name:<12}{value:.4f}\n")
