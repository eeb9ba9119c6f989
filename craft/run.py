"""How and where a task runs: everything that does not change what is computed. The fields are the flags of the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import attrs

from craft import config

__all__ = ["Checkpoints", "Evaluations", "Run", "Samples", "Stop", "Track", "budget"]

_UNITS = {"MB": 1 << 20, "GB": 1 << 30}


@attrs.frozen
class Checkpoints:
    """When the state is saved."""

    every: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps between checkpoints; 0: a tenth of the run. The last step is always saved."""
    minutes: float = attrs.field(default=10.0, validator=config.positive)
    """Longest time without a checkpoint, minutes."""
    keep: int = attrs.field(default=2, validator=config.at_least(1))
    """Newest checkpoints that are kept."""
    keep_every: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps between checkpoints that are kept for good, of those that are written; 0: none is."""
    best: str = ""
    """Measure by which the best checkpoint is kept too, such as eval/loss; none: only the newest are."""
    strict: bool = False
    """End the run where a checkpoint cannot be written, instead of trying again at the next one."""


@attrs.frozen
class Evaluations:
    """When the held-out split is measured."""

    every: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps between evaluations; 0: a fifth of the run. The last step always is."""
    batches: int = attrs.field(default=20, validator=config.at_least(1))
    """Batches of an evaluation during the run, spread over the split."""
    whole: bool = True
    """Also measure on all of the split at the end."""


@attrs.frozen
class Samples:
    """When and how the model writes a sample."""

    every: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps between samples; 0: only at the end."""
    prompt: str = "\n"
    """Text that the samples go on from."""
    tokens: int = attrs.field(default=400, validator=config.at_least(0))
    """Tokens of one sample; 0: none is written."""
    temperature: float = attrs.field(default=0.8, validator=config.positive)
    """Below 1 bolder, above 1 wilder."""


@attrs.frozen
class Stop:
    """When the run ends before its last step."""

    patience: int = attrs.field(default=0, validator=config.at_least(0))
    """Evaluations without a better held-out loss before the run stops; 0: never."""


@attrs.frozen
class Track:
    """Where the numbers go, beside metrics.jsonl and the terminal."""

    wandb: Literal["auto", "online", "offline", "off"] = config.choice("auto", "auto", "online", "offline", "off")
    """Weights & Biases: `auto` mirrors the run when you are logged in, `offline` writes what `wandb sync` sends later."""
    project: str = "craft"
    """Project in W&B."""
    group: str = ""
    """Name that related runs share in W&B."""
    artifacts: bool = False
    """Also upload the newest checkpoint to W&B when the run ends, with what `craft generate` needs beside it."""
    tensorboard: bool = False
    """Also write TensorBoard files."""
    every: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps between reports; 0: a hundredth of the run."""


def budget(memory: str) -> int:
    """Return the bytes that a size such as `4GB` or `1500MB` stands for (GB of 2**30); 0 for `auto`, `fast` and `small`.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if memory in ("auto", "fast", "small"):
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MB|GB)", str(memory).upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not size:
        raise ValueError(f"got memory={memory!r}; expected auto, fast, small, or a size such as 4GB or 1500MB")
    return size


def _memory(instance: Any, attribute: Any, value: str) -> None:
    budget(value)


@attrs.frozen
class Run:
    """How and where a task runs."""

    out: Path | None = None
    """The run's directory; none: outputs/NAME/UTC time."""
    resume: str = ""
    """`auto` goes on with the run in --out (or the newest), or starts it; DIR goes on with DIR."""
    resume_exact: bool = False
    """Refuse to resume where the machine, its threads, the mode or the code differ: the bits might, too."""
    fork: Path | None = None
    """Go on with a run, or one of its checkpoints (RUN/checkpoints/step-...), as a new run: anything may be changed."""
    init: Path | None = None
    """Start from the weights of a finished run, with its tokenizer, on the data given here."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = config.choice("auto", "auto", "fp32", "bf16", "fp16")
    """Type of the activations; weights stay fp32. `auto`: bf16 where it is faster here. fp16 is for GPUs without bf16."""
    compile: Literal["auto", "none", "block", "step"] = config.choice("auto", "auto", "none", "block", "step")
    """What is compiled: nothing, each block of the model, or the whole step. `auto` weighs the wait against the length."""
    memory: str = attrs.field(default="auto", validator=_memory)
    """`fast` keeps all activations, `small` computes them again and has 8-bit moments, 4GB takes the fastest that fits; `auto`
    keeps them where they and the state take up to 1.5 GB together."""
    oom: Literal["stop", "halve"] = config.choice("stop", "stop", "halve")
    """Where a step does not fit into memory: stop, or go on from the last checkpoint with the batch in twice as many parts."""
    threads: int = attrs.field(default=0, validator=config.at_least(0))
    """CPU threads; 0: one a core."""
    checkpoint: Checkpoints = Checkpoints()
    """When the state is saved."""
    evaluate: Evaluations = Evaluations()
    """When the held-out split is measured."""
    sample: Samples = Samples()
    """When and how the model writes a sample."""
    stop: Stop = Stop()
    """When the run ends before its last step."""
    track: Track = Track()
    """Where the numbers go."""
    extend: bool = False
    """Allow --resume with another number of steps: the schedule is stretched from here on."""
    profile: int = attrs.field(default=0, validator=config.at_least(0))
    """Steps to trace, after the first three: trace.json for the browser, and the ten costliest kernels; 0: none."""
    debug: bool = False
    """Show the whole traceback of an error."""
