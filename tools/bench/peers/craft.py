"""Craft, through what it offers to everybody: models, losses, gradients, optimisers, the step and the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch

from craft import engine, grad, losses, models, optim, param, run, schedule, step, tree
from craft import generate as generation
from craft.mixers import Attention
from craft.types import Batch, Context, Model, Tensor, Tree, Value
from experiments.char_1m import Char1M
from tools.bench.beat import Beat
from tools.bench.cases import Case
from tools.bench.material import BATCHES, Arrays
from tools.bench.peers import recipe
from tools.bench.setup import Setup

__all__ = ["architecture", "generate", "memories", "quality", "train"]


def architecture(case: Case, kind: str) -> tuple[Any, bool]:
    """Return Craft's model for a case, and whether it stands in for a GPT-2 that this commit does not have.

    Parameters
    ----------
    case
        The shapes.
    kind
        `gpt2`, or `default` for the model of experiments/char_1m.py in these shapes.
    """
    if kind == "gpt2" and hasattr(models, "gpt2"):
        return models.gpt2(width=case.width, depth=case.depth, heads=case.heads, context=case.context), False
    pattern = tuple(
        attrs.evolve(mixer, heads=case.heads) if isinstance(mixer, Attention) else mixer for mixer in models.Sequence().pattern
    )
    return models.Sequence(width=case.width, depth=case.depth, pattern=pattern), kind == "gpt2"


def memories() -> list[str]:
    """List the choices of `--memory` beside its default; empty where this commit has no such flag."""
    if "memory" not in (field.name for field in attrs.fields(run.Run)):
        return []
    return ["small"]


@attrs.frozen
class _Windows:
    """The shared batches as a task's data."""

    batches: list[Batch]
    tokens: int
    fingerprint: str = "bench"

    def batch(self, step: int) -> Batch:
        return self.batches[step % len(self.batches)]

    def describe(self) -> dict[str, Any]:
        return {"batches": len(self.batches)}


def _data(setup: Setup) -> _Windows:
    ids = torch.from_numpy(setup.material.batches())
    place = torch.arange(setup.case.batch)
    batches = [Batch(each[:, :-1].contiguous(), each[:, 1:].contiguous(), torch.ones(each[:, 1:].shape), place) for each in ids]
    return _Windows(batches, setup.case.tokens)


def _params(setup: Setup, model: Model) -> Tree:
    """Make the parameters: the shared ones where the architecture is, else Craft's own initialisation."""
    if setup.contestant.architecture != "gpt2" or not hasattr(models, "gpt2"):
        return param.materialise(model.spec, 0)
    given = setup.material.weights()
    named = tree.named(model.spec)
    leaves = [torch.from_numpy(_shared(path, one.layers, given).copy()) for path, one in named.items()]
    return tree.unflatten(tree.flatten(model.spec)[1], leaves)


_WHOLE = {
    "embed": "wte",
    "position_embed": "wpe",
    "norm.scale": "lnf.weight",
    "norm.bias": "lnf.bias",
    "attention.norm.scale": "ln1.weight",
    "attention.norm.bias": "ln1.bias",
    "attention.out": "proj.weight",
    "attention.out_bias": "proj.bias",
    "feedforward.norm.scale": "ln2.weight",
    "feedforward.norm.bias": "ln2.bias",
    "feedforward.up": "fc.weight",
    "feedforward.up_bias": "fc.bias",
    "feedforward.out": "out.weight",
    "feedforward.out_bias": "out.bias",
}
"""Craft's paths below a block, or at the top, and the names of the shared weights."""


def _shared(path: str, layers: int, given: Arrays) -> npt.NDArray[np.float32]:
    """Return the shared weights of a leaf, over all layers where it is stacked."""
    if not layers:
        return _single("", path, given)
    inner = path.removeprefix("blocks.")
    return np.stack([_single(f"blocks.{depth}.", inner, given) for depth in range(layers)])


def _single(where: str, inner: str, given: Arrays) -> npt.NDArray[np.float32]:
    """Return the shared weights of one layer's leaf; queries, keys and values are thirds of one array."""
    if inner in _WHOLE:
        return given[where + _WHOLE[inner]]
    third = ("query", "key", "value").index(inner.removeprefix("attention.").removesuffix("_bias"))
    joined = given[where + ("qkv.bias" if inner.endswith("_bias") else "qkv.weight")]
    return np.split(joined, 3, -1)[third]


def _task(setup: Setup, rate: Value = 1e-3, dropout: float = 0.0) -> tuple[step.Task, bool]:
    case = setup.case
    value, stand_in = architecture(case, setup.contestant.architecture)
    value = attrs.evolve(value, dropout=dropout)
    model = value.build(case.vocabulary)
    plain = setup.contestant.architecture == "gpt2"
    optimiser: Any = optim.AdamW(decay=0.1, beta1=0.9, beta2=0.99, clip=1.0) if plain else Char1M().optimizer
    if setup.contestant.memory == "small":  # as the command line does
        optimiser = attrs.evolve(optimiser, bits=8)
    transform = optimiser.build(model.spec, rate if plain else Char1M().lr)
    flops = case.flops if plain and not stand_in else value.flops(model.spec, case.context) * case.tokens
    steps = setup.options.get("updates", 10_000)
    task = step.Task(
        step=step.build(grad.reverse(losses.next_token(model)), transform),
        init=lambda seed: step.start(_params(setup, model), transform, steps=steps, seed=seed),
        data=_data(setup),
        steps=steps,
        model=model,
        context=case.context,
        flops=flops,
    )
    return task, stand_in


def _start(setup: Setup, flops: float = 0.0, steps: int = 0) -> engine.Engine:
    mode: Any = setup.contestant.variant
    kind: Any = setup.contestant.precision
    how: dict[str, Any] = {"memory": setup.contestant.memory} if setup.contestant.memory else {}
    chosen = run.Run(device=setup.device, compile=mode, precision=kind, threads=setup.threads, **how)
    return engine.start(chosen, steps=steps, flops=flops)


def train(setup: Setup, beat: Beat) -> None:
    """Train on the shared batches until the parent says stop."""
    task, stand_in = _task(setup)
    machine = _start(setup, task.flops, task.steps)
    state = machine.place(task.init(0), consume=True)
    chosen = engine.choose_memory(setup.contestant.memory or "fast", task, machine, state)
    machine = attrs.evolve(machine, rematerialise=chosen.rematerialise)
    batches = [machine.send(task.data.batch(number)) for number in range(BATCHES)]
    counted = sum(leaf.numel() for leaf in tree.leaves(state.params))
    beat.start(parameters=counted, flops=task.flops, stand_in=stand_in, mode=machine.mode)
    program = machine.step(task, state, batches[0])
    for done in itertools.count():
        state, metrics = program(state, batches[done % len(batches)])
        beat(metrics["loss"].item)


def generate(setup: Setup) -> tuple[Callable[[int], list[int]], dict[str, Any]]:
    """Make a function that writes a number of tokens after the prompt, greedily, with a key-value cache, and facts of it."""
    task, stand_in = _task(setup)
    assert task.model is not None
    machine = _start(setup)
    params = generation.laid_out(machine.place(task.init(0).params), task.model.spec, machine.compute)
    prompt = machine.send(task.data.batch(0)).inputs_BT[:1, : setup.options["prompt"]]
    advance = machine.function(task.model.advance)
    token = None
    if setup.contestant.variant == "step":
        room = task.model.memory(1, setup.case.context, machine.compute)
        token = machine.compiled(generation.one_token(task.model), params, prompt[:, :1].contiguous(), room)

    def write(tokens: int) -> list[int]:
        drawn = generation.decode(
            task.model,  # type: ignore[arg-type]
            params,
            prompt,
            vocabulary=setup.case.vocabulary,
            context=setup.case.context,
            sampling=generation.Sampling(temperature=0.0),
            advance=advance,
            token=token,
            dtype=machine.compute,
        )
        return [int(row) for row in itertools.islice(drawn, tokens)]

    return write, {"stand_in": stand_in}


def quality(setup: Setup) -> dict[str, Any]:
    """Follow nanoGPT's recipe to a validation loss; see `recipe.follow`.

    Craft's dropout acts on what each mixer adds to the stream, nanoGPT's also on the embedding and in the attention.
    """
    asked = setup.options
    climb, floor = recipe.WARMUP / asked["updates"], recipe.FLOOR / recipe.PEAK
    task, stand_in = _task(setup, schedule.cosine(recipe.PEAK, climb, floor), asked["dropout"])
    machine = _start(setup, task.flops, task.steps)
    state = machine.place(task.init(asked["seed"]))
    place = torch.arange(setup.case.batch)
    judged = machine.function(losses.next_token(task.model))  # type: ignore[arg-type]
    program: list[Any] = []

    def batch(inputs_BT: Tensor, targets_BT: Tensor, sample_B: Tensor) -> Batch:
        return machine.send(Batch(inputs_BT, targets_BT, torch.ones(inputs_BT.shape), sample_B))  # type: ignore[no-any-return]

    def update(done: int, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        nonlocal state
        given = batch(inputs_BT, targets_BT, place + done * len(place))
        if not program:
            program.append(machine.step(task, state, given))
        state, _ = program[0](state, given)

    def judge(inputs_BT: Tensor, targets_BT: Tensor) -> float:
        given = batch(inputs_BT, targets_BT, torch.arange(len(inputs_BT)))
        return float(judged(state.params, given, Context())[0])

    return {**recipe.follow(setup, update, judge), "stand_in": stand_in}
