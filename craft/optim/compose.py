"""Joining transforms, and the transforms without state that scale updates."""

from __future__ import annotations

from craft import tree
from craft.optim.moments import times
from craft.types import Context, Transform, Tree, Value, resolve

__all__ = ["chain", "identity", "scale", "scale_by_rate"]


def chain(*transforms: Transform) -> Transform:
    """Apply transforms one after another, each to the updates of the one before.

    Parameters
    ----------
    *transforms
        The transforms, first to last; all see the same parameters.

    Returns
    -------
    Transform whose state is the tuple of their states.

    Raises
    ------
    ValueError
        If there is no transform.
    """
    if not transforms:
        raise ValueError("got no transforms to chain; give at least one, or use identity()")

    def init(params: Tree) -> tuple[Tree, ...]:
        return tuple(transform.init(params) for transform in transforms)

    def update(grads: Tree, state: tuple[Tree, ...], params: Tree, ctx: Context) -> tuple[Tree, tuple[Tree, ...]]:
        states = []
        for transform, part in zip(transforms, state, strict=True):
            grads, part = transform.update(grads, part, params, ctx)
            states.append(part)
        return grads, tuple(states)

    return Transform(init, update)


def identity() -> Transform:
    """Leave the updates as they are.

    Returns
    -------
    Transform without state.
    """
    return Transform(lambda params: (), lambda grads, state, params, ctx: (grads, state))


def scale(value: Value) -> Transform:
    """Multiply the updates by a number.

    Parameters
    ----------
    value
        The factor.

    Returns
    -------
    Transform without state.
    """

    def update(grads: Tree, state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        number = resolve(value, ctx)
        return tree.map(lambda g: times(g, number), grads), state

    return Transform(lambda params: (), update)


def scale_by_rate(lr: Value, rates: Tree | None = None) -> Transform:
    """Turn a direction into a step downhill: multiply by minus the learning rate.

    Parameters
    ----------
    lr
        Learning rate.
    rates
        Multiplier of the learning rate for each leaf, a tree of floats; see `param.rates`. None is 1 everywhere.

    Returns
    -------
    Transform without state.
    """

    def update(grads: Tree, state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        number = -resolve(lr, ctx)
        if rates is None:
            return tree.map(lambda g: times(g, number), grads), state
        return tree.map(lambda g, rate: times(g, number if rate == 1.0 else number * rate), grads, rates), state

    return Transform(lambda params: (), update)
