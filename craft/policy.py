"""Choices that the engine makes for the code it calls: how to compute, never what.

A policy is in force for the calls inside `with using(...)` and is read while a program is traced, so that models, losses
and gradients need no argument for it. Every combination gives the same result up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

__all__ = ["Policy", "current", "region", "using"]


class Policy(NamedTuple):
    """What is in force.

    Attributes
    ----------
    compute
        Type of the activations; weights are cast to it where they are used.
    kernels
        `auto` takes the fastest kernel of the device. `math` takes plain operations only, which every transform of
        torch.func can differentiate: forward mode and second order need it.
    tape
        Whether `grad.reverse` may use the autograd tape instead of torch.func (faster in eager mode, impossible under vmap).
    wrap
        What `region` does to a function: compile or rematerialise it; None leaves it as it is.
    rematerialise
        Whether a region's activations are computed again in the backward pass instead of kept.
    profile
        Whether compiled kernels tell torch's profiler their names.
    """

    compute: torch.dtype = torch.float32
    kernels: str = "auto"
    tape: bool = False
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    rematerialise: bool = False
    profile: bool = False


class _Current:
    policy = Policy()


def current() -> Policy:
    """Return the policy in force."""
    return _Current.policy


class using:  # noqa: N801 - reads as a statement: `with policy.using(kernels="math")`
    """Put a changed policy in force for a block of code; the former one returns after it, also after an error."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def __enter__(self) -> Policy:
        self.former = _Current.policy
        _Current.policy = _Current.policy._replace(**self.changes)
        return _Current.policy

    def __exit__(self, *error: object) -> None:
        _Current.policy = self.former


def region(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a pure function of tensor trees (a block of a model) as a piece that may be compiled or rematerialised alone."""

    def call(*args: Any) -> Any:
        wrap = _Current.policy.wrap
        return function(*args) if wrap is None else wrap(function)(*args)

    return call
