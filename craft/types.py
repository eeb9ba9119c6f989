"""The grammar: the types that every room speaks, and the legend of shape letters.

Tensors carry their shape in their name (`x_BTD`). The letters:

====  ==========================================  ====  =========================================
B     batch: samples of one step                  F     inner width of a feed-forward
T     time: positions of one sequence             V     vocabulary: number of different tokens
D     width of the residual stream                S     slots: capacity of a memory
H     query heads                                 K     pack: stacked trials
G     key/value heads                             L     layers: repetitions of a model's block
E     width of one head                           N     any other count
C, P  chunks and pairs of chunks (attention)
====  ==========================================  ====  =========================================

A digit is an axis of that size (`key_B2`). Letters that are not here are declared in the docstring of their file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import attrs
from torch import Tensor

__all__ = [
    "Batch",
    "Context",
    "Extras",
    "GradFn",
    "Hyper",
    "Layout",
    "Loss",
    "Metrics",
    "Model",
    "Step",
    "Tensor",
    "Transform",
    "Tree",
    "Value",
    "hyper",
    "resolve",
]

Tree: TypeAlias = Any
"""A nest of dicts, lists, tuples and NamedTuples with tensors as leaves; never `None`."""

Metrics: TypeAlias = dict[str, Tensor]
"""Named 0-d tensors (or one per sample, per trial)."""

Extras: TypeAlias = dict[str, Any]
"""What a model or a loss returns beside its value: `weight` (how much the mean stands for), metrics, `buffers`."""


class Context(NamedTuple):
    """What a step lends to the functions it calls. Evaluation lends no key: nothing random happens.

    Attributes
    ----------
    key
        Random key, int64 of shape (2,); a loss makes it one key per sample, (B, 2), before it calls the model.
    hyper
        Hyperparameters by configuration path, 0-d float32; see `hyper`.
    buffers
        Running statistics of the model, a tree.
    progress
        Fraction of the run that is done, 0-d float32 in [0, 1].
    scaling
        The loss scale and its counts, a `grad.Scaling`; empty where the loss is not scaled (every type but fp16).
    layout
        Where documents lie in the samples, a `Layout`; empty where each sample is one stretch of text.
    """

    key: Tensor | None = None
    hyper: Mapping[str, Tensor] = {}
    buffers: Tree = ()
    progress: Tensor | float = 0.0
    scaling: Any = ()
    layout: Any = ()


class Layout(NamedTuple):
    """Where documents lie in samples that hold several: no position sees another document than its own.

    Attributes
    ----------
    position_BT
        Place of each position in its document, from 0, int64.
    document_BT
        Number of its document in the sample, int64; -1 behind the last one.
    """

    position_BT: Tensor
    document_BT: Tensor


class Batch(NamedTuple):
    """Samples of one step for a model of sequences.

    Attributes
    ----------
    inputs_BT
        Token ids, int64.
    targets_BT
        The id that follows each input, int64.
    weights_BT
        How much each target counts, float32; 0 hides a target.
    sample_B
        Global number of each sample in the run, int64: what its random masks are drawn by.
    layout
        A `Layout` where samples hold several documents; else empty.
    """

    inputs_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor
    sample_B: Tensor
    layout: Any = ()


class Model(NamedTuple):
    """A model, or a mixer, as pure functions. `advance` over pieces equals `apply` over the whole.

    A model whose `apply` ends with a product may tell its two parts, so that a loss need not hold all logits at once; a model
    that is given another `apply` is given other parts too, or None.

    Attributes
    ----------
    spec
        Tree of `param.Param`: what the model needs.
    apply
        (params, x, ctx) -> (y, extras).
    memory
        (batch, capacity, dtype, device) -> the tree that `advance` carries from call to call; every leaf starts with B.
    advance
        (params, x_BT, memory, ctx) -> (y, memory), for T >= 1 further positions.
    features
        (params, x, ctx) -> (features_BTD, extras): what `apply` multiplies by `head`; None: it cannot be told apart.
    head
        params -> weight_DV.
    """

    spec: Tree
    apply: Callable[[Tree, Tensor, Context], tuple[Tensor, Extras]]
    memory: Callable[..., Tree]
    advance: Callable[[Tree, Tensor, Tree, Context], tuple[Tensor, Tree]]
    features: Callable[[Tree, Tensor, Context], tuple[Tensor, Extras]] | None = None
    head: Callable[[Tree], Tensor] | None = None


class Transform(NamedTuple):
    """Gradients to updates, with state. Made by `optim.*`, joined by `optim.chain`.

    Attributes
    ----------
    init
        params -> state.
    update
        (grads, state, params, ctx) -> (updates, state); `params + updates` are the next parameters.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree, Context], tuple[Tree, Tree]]


Loss: TypeAlias = Callable[[Tree, Tree, Context], tuple[Tensor, Extras]]
"""(params, batch, ctx) -> (0-d mean, extras); `extras["weight"]` says how many tokens (samples) the mean stands for."""

GradFn: TypeAlias = Callable[[Tree, Tree, Context], tuple[Tree, Metrics]]
"""(params, batch, ctx) -> (grads, metrics), `metrics["loss"]` among them. Made from a Loss by `grad.reverse`."""

Step: TypeAlias = Callable[[Tree, Tree], tuple[Tree, Metrics]]
"""(state, batch) -> (state, metrics). The state is any NamedTuple of tensors with `step` and `halted`."""

Value: TypeAlias = float | Callable[[Context], Tensor | float]
"""A number of a transform: a constant, or a function of the context (a schedule, a hyperparameter)."""


@attrs.frozen
class Hyper:
    """A hyperparameter as a `Value`; see `hyper`. Where the state holds it, a program is the same one whatever the default."""

    path: str
    """Configuration path."""
    default: float
    """What it is where the state holds no such number."""

    def __call__(self, ctx: Context) -> Tensor | float:
        """Return what it is now."""
        return ctx.hyper.get(self.path, self.default)


def hyper(path: str, default: float) -> Hyper:
    """Read a hyperparameter from the state where the run keeps it there, else use the constant.

    Parameters
    ----------
    path
        Configuration path, such as `optimizer.decay`.
    default
        What to use when the state holds no such number.

    Returns
    -------
    A `Value`.
    """
    return Hyper(path, default)


def resolve(value: Value, ctx: Context) -> Tensor | float:
    """Return the number that `value` stands for now."""
    return value(ctx) if callable(value) else value
