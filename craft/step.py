"""The training step: a pure function `(state, batch) -> (state, metrics)`, and the Task that drivers run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import attrs
import torch

from craft import grad, optim, param, rng, tree
from craft.errors import UsageError
from craft.types import Context, GradFn, Metrics, Model, Step, Tensor, Transform, Tree, Value

if TYPE_CHECKING:
    from craft.hooks import Hook

__all__ = ["Data", "Evaluation", "State", "Task", "Tokenizer", "averaged", "build", "context", "scaled", "start", "starter"]


class State(NamedTuple):
    """What the built step carries. A step of one's own may carry any NamedTuple with `step` and `halted`.

    Attributes
    ----------
    step
        Updates made, 0-d int64.
    halted
        Whether a number was not finite, 0-d bool: from then on nothing else changes.
    params, opt, buffers
        Trees of the model, the transform and the running statistics.
    hyper
        Hyperparameters by configuration path, 0-d float32.
    seed
        Seed of everything random, 0-d int64.
    horizon
        Updates in the whole run, 0-d int64.
    scaling
        The loss scale of a run in fp16, a `grad.Scaling`; empty in any other type. See `scaled`.
    """

    step: Tensor
    halted: Tensor
    params: Tree
    opt: Tree
    hyper: dict[str, Tensor]
    buffers: Tree
    seed: Tensor
    horizon: Tensor
    scaling: Tree = ()


def build(grad_fn: GradFn, transform: Transform) -> Step:
    """Make a step of a gradient and a transform.

    A loss or gradient that is not finite sets `halted`; that step and all later ones leave every other leaf as it is. A
    gradient function that says `skip` leaves them as they are without halting: the step counts, nothing else moves.

    Parameters
    ----------
    grad_fn
        (params, batch, ctx) -> (grads, metrics); metrics hold `loss`, `buffers` where the model has running
        statistics, and `skip` (0-d bool) where an update may be left out.
    transform
        What turns gradients into updates.

    Returns
    -------
    (State, batch) -> (State, metrics), pure: compile it, vmap it, or run it as it is.
    """

    def apply(state: State, moved: State, skip: Tensor, ctx: Context, grads: Tree, metrics: Metrics) -> tuple[State, Metrics]:
        norm = tree.norm(grads)
        on = (torch.isfinite(metrics["loss"]) & torch.isfinite(norm) | skip) & ~state.halted
        updates, opt = transform.update(grads, state.opt, state.params, ctx)
        params = tree.map(torch.add, state.params, updates)
        new = tree.where(on & ~skip, moved._replace(params=params, opt=opt), state)
        count, scaling = tree.where(on, (state.step + 1, moved.scaling), (state.step, state.scaling))
        return new._replace(step=count, halted=~on, scaling=scaling), {**metrics, "grad_norm": torch.where(skip, 0.0, norm)}

    grad_fn = grad.scale(grad_fn)

    def update(state: State, batch: Tree) -> tuple[State, Metrics]:
        ctx = context(state)
        grads, metrics = grad_fn(state.params, batch, ctx)
        skip = metrics.pop("skip", torch.zeros_like(state.halted))
        kept = {name: metrics.pop(name, getattr(state, name)) for name in ("buffers", "scaling")}
        return apply(state, state._replace(**kept), skip, ctx, grads, metrics)

    return update


def context(state: State) -> Context:
    """Make what a step lends: the key of (seed, step), the hyperparameters, the buffers and the progress."""
    key = rng.fold_in(rng.key(state.seed), state.step)
    return Context(key, state.hyper, state.buffers, state.step / state.horizon, state.scaling)


def scaled(state: Any, on: bool = True) -> Any:
    """Give a state a loss scale, which training in fp16 needs, or take it away; what it has already stays.

    Parameters
    ----------
    state
        A state, or stacked ones: each trial gets a scale of its own. One of another class has none to take away.
    on
        Whether the loss is to be scaled.

    Raises
    ------
    UsageError
        If the state is of a class without a field `scaling`.
    """
    if not hasattr(state, "scaling"):
        if on:
            raise UsageError(f"got a {type(state).__name__} without `scaling`; fp16 needs a loss scale: use bf16 or fp32")
        return state
    if bool(state.scaling) == on:
        return state
    return state._replace(scaling=grad.start_scaling(state.halted) if on else ())


def averaged(state: State) -> Tree:
    """Return the moving average of the parameters where the optimiser keeps one, else the parameters."""
    average = optim.averaged(state.opt)
    return state.params if average is None else average


def start(
    params: Tree,
    transform: Transform,
    *,
    steps: int,
    seed: int = 0,
    hyper: Mapping[str, float] | None = None,
    buffers: Tree = (),
) -> State:
    """Make the state before the first update, on the CPU.

    Parameters
    ----------
    params
        The model's tensors; see `param.materialise`.
    transform
        The transform that `build` was given.
    steps
        Updates in the whole run.
    seed
        Seed of everything random.
    hyper
        Numbers that may change without a new program, by configuration path.
    buffers
        Running statistics of the model.

    Raises
    ------
    ValueError
        If `steps` is not positive.
    """
    if steps < 1:
        raise ValueError(f"got steps={steps}; expected at least 1 update")
    number = {path: torch.tensor(value, dtype=torch.float32) for path, value in (hyper or {}).items()}
    whole = {name: torch.tensor(value, dtype=torch.int64) for name, value in (("step", 0), ("seed", seed), ("horizon", steps))}
    return State(halted=torch.tensor(False), params=params, opt=transform.init(params), hyper=number, buffers=buffers, **whole)


def starter(spec: Tree, transform: Transform, *, steps: int, hyper: Mapping[str, float] | None = None) -> Callable[..., State]:
    """Make a task's `init`: seed -> the state before the first update, with parameters made of a spec, or those given."""

    def init(seed: int, params: Tree | None = None) -> State:
        made = param.materialise(spec, seed) if params is None else params
        return start(made, transform, steps=steps, seed=seed, hyper=hyper)

    return init


class Data(Protocol):
    """Where batches come from: a pure function of the step."""

    @property
    def fingerprint(self) -> str:
        """Content hash: two sources with the same one give the same batches."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens (samples, where there are no tokens) in one batch."""
        ...

    def batch(self, step: int) -> Tree:
        """Return the batch of a step, CPU tensors of the same shapes at every step."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what people want to know of the source, as JSON."""
        ...


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def size(self) -> int:
        """Number of different tokens."""
        ...

    @property
    def end(self) -> int | None:
        """Id of the token that ends a document, where there is one."""
        ...

    def encode(self, text: str) -> Tensor:
        """Return ids, int64 of shape (N,); unknown text is a ValueError that lists it."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        ...

    def stream(self) -> Any:
        """Start the text of ids that come a few at a time: `push(ids)` returns what is complete, `finish()` the rest."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return what `data.load_tokenizer` makes the same tokenizer of."""
        ...


class Evaluation(NamedTuple):
    """How a state is judged on data that it never trains on.

    Attributes
    ----------
    measure
        (state, batch) -> {name: (weighted sum, weight)}, pure; 0-d tensors.
    batches
        split -> batches of equal shapes, always the same ones in the same order.
    summary
        ({name: mean}, split) -> {name: value} that people read (bits a byte beside nats a token).
    """

    measure: Callable[[Any, Tree], dict[str, tuple[Tensor, Tensor]]]
    batches: Callable[[str], Iterable[Tree]]
    summary: Callable[[dict[str, float], str], dict[str, float]] = lambda means, split: means


@attrs.frozen(kw_only=True)
class Task:
    """What an experiment builds, and the only thing that drivers know of it."""

    step: Step
    """(state, batch) -> (state, metrics)."""
    init: Callable[..., Any]
    """Seed -> the state before the first update; with parameters as a second argument, one that begins with these."""
    data: Data
    """Where batches come from."""
    steps: int
    """Updates in the whole run."""
    seed: int = 0
    """Seed that `init` is called with."""
    model: Model | None = None
    """The model, if the task can generate."""
    tokenizer: Tokenizer | None = None
    """What makes tokens of text."""
    context: int = 0
    """Longest sequence that the model is trained on, in tokens; 0 where there are no sequences."""
    evaluation: Evaluation | None = None
    """How a state is judged."""
    params: Callable[[Any], Tree] = lambda state: averaged(state) if hasattr(state, "opt") else state.params
    """State -> the parameters that evaluate and generate use (their average, where one is kept)."""
    rate: Value | None = None
    """The learning rate, for the reports."""
    flops: float = 0.0
    """Floating-point operations of one update, forward and backward; 0 where unknown."""
    hooks: tuple[Hook, ...] = ()
    """Functions of one's own that are called every n steps; see `hooks.every`."""
    experiment: Any = None
    """The attrs value that describes the task; it becomes the run's config.json."""
