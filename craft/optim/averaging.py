"""Averaging the parameters over the run. Polyak and Juditsky 1992, doi:10.1137/0330046."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from craft import tree
from craft.optim.moments import blend, check_complement, start_count
from craft.types import Context, Tensor, Transform, Tree, Value, resolve

__all__ = ["AverageState", "average", "averaged"]


class AverageState(NamedTuple):
    """Running mean of the parameters.

    Attributes
    ----------
    step
        Updates made, 0-d int64.
    params
        The mean, a tree like the parameters.
    """

    step: Tensor
    params: Tree


def average(c: Value) -> Transform:
    """Keep an exponential moving average of the parameters; the updates pass unchanged.

    Put it last in a chain: it adds the updates that it sees to the parameters. The average starts at the first
    parameters; they are forgotten quickly because the decay of update t = 1, 2, ... is min(1 - c, (1 + t) / (10 + t)),
    so that early on the average reaches back over the last tenth of the run so far.

    Parameters
    ----------
    c
        Complement of the decay, in (0, 1]: 0.001 averages over about 1000 updates.

    Returns
    -------
    Transform with an `AverageState`; `averaged` finds it.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1].

    References
    ----------
    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", doi:10.1137/0330046.
    """
    check_complement("c", c)

    def init(params: Tree) -> AverageState:
        return AverageState(start_count(params), tree.map(torch.clone, params))

    def update(grads: Tree, state: AverageState, params: Tree, ctx: Context) -> tuple[Tree, AverageState]:
        count = state.step + 1
        near = torch.clamp(9.0 / (10.0 + count), min=resolve(c, ctx))
        moved = tree.map(torch.add, params, grads)
        return grads, AverageState(count, blend(state.params, moved, near))

    return Transform(init, update)


def averaged(state: Tree) -> Tree | None:
    """Find the average of the parameters in the state of a transform.

    Parameters
    ----------
    state
        State of any chain, however nested; stacked states give stacked averages.

    Returns
    -------
    Tree like the parameters, or None where no average is kept.

    Raises
    ------
    ValueError
        If there is more than one average.
    """
    found = _averages(state)
    if len(found) > 1:
        raise ValueError(f"found {len(found)} averages of the parameters; expected one: keep one `average`, last in the chain")
    return found[0].params if found else None


def _averages(state: Any) -> list[AverageState]:
    if isinstance(state, AverageState):
        return [state]
    if isinstance(state, dict | list | tuple):
        parts = state.values() if isinstance(state, dict) else state
        return [found for part in parts for found in _averages(part)]
    return []
