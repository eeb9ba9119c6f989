"""Optimisers as values: what an experiment's `optimizer` field holds.

Every recipe has `build(spec, lr, at)`. Where `at` is the recipe's path in the configuration, its numbers are read from
the state if the run keeps them there: `optimizer.decay`, and for what is near one its complement (`optimizer.beta1` holds
1 - beta1). A part whose number is 0 is left out of the program.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

from craft import config, param, tree
from craft.optim.adam import scale_by_adam
from craft.optim.averaging import average
from craft.optim.clip import clip_by_norm
from craft.optim.compose import chain, identity, scale, scale_by_rate
from craft.optim.decay import add_decay
from craft.optim.lion import scale_by_lion
from craft.optim.momentum import trace
from craft.optim.muon import scale_by_muon
from craft.optim.quantised import check_bits
from craft.optim.routing import route
from craft.types import Transform, Tree, Value, hyper

__all__ = ["SGD", "AdamW", "Lion", "Muon"]


def _size(default: float) -> Any:
    return config.tunable(default, validator=config.at_least(0.0))


def _near_one(default: float) -> Any:
    return config.tunable(default, complement=True, validator=config.fraction)


def _width() -> Any:
    return attrs.field(default=32, validator=lambda instance, attribute, value: check_bits(value))


def _pattern(instance: Any, attribute: Any, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"got {attribute.name}={value!r}; expected a regular expression ({error})") from error


def _number(at: str, name: str, value: float) -> Value:
    return hyper(f"{at}.{name}", value) if at else value


def _clip(at: str, limit: float) -> list[Transform]:
    return [clip_by_norm(_number(at, "clip", limit))] if limit else []


def _decay(at: str, decay: float, spec: Tree) -> list[Transform]:
    return [add_decay(_number(at, "decay", decay), param.decayed(spec))] if decay else []


def _average(at: str, decay: float) -> list[Transform]:
    return [average(_number(at, "average", 1.0 - decay))] if decay else []


@attrs.frozen
class AdamW:
    """Adam with decoupled weight decay. Loshchilov and Hutter 2017, arXiv:1711.05101."""

    decay: float = _size(0.1)
    """Weight decay of leaves with two axes or more, per update and unit of learning rate; 0 for none."""
    beta1: float = _near_one(0.9)
    """Decay of the running mean of the gradient, fraction kept per update."""
    beta2: float = _near_one(0.99)
    """Decay of the running mean of the squared gradient, fraction kept per update."""
    eps: float = _size(1e-8)
    """Added to the root of the mean square, in units of the gradient."""
    clip: float = _size(1.0)
    """Largest global norm of the gradient; 0 clips nothing."""
    average: float = _near_one(0.0)
    """Decay of the moving average of the parameters, fraction kept per update; 0 keeps no average."""
    bits: Literal[32, 8] = _width()
    """Bits of a number in the moments: 32, or 8 in blocks of 256 with a scale each."""

    def build(self, spec: Tree, lr: Value, at: str = "") -> Transform:
        """Make the transform.

        Parameters
        ----------
        spec
            Tree of `param.Param`: what decays, and the multipliers of the learning rate.
        lr
            Learning rate.
        at
            Path of this value in the configuration, such as `optimizer`; empty for constants.

        Returns
        -------
        Transform.
        """
        return chain(
            *_clip(at, self.clip),
            _adam(at, self.beta1, self.beta2, self.eps, self.bits),
            *_decay(at, self.decay, spec),
            scale_by_rate(lr, param.steady_rates(spec)),
            *_average(at, self.average),
        )


def _adam(at: str, beta1: float, beta2: float, eps: float, bits: int) -> Transform:
    near1, near2 = _number(at, "beta1", 1.0 - beta1), _number(at, "beta2", 1.0 - beta2)
    return scale_by_adam(near1, near2, _number(at, "eps", eps), bits)


@attrs.frozen
class SGD:
    """Gradient descent with momentum. Sutskever et al. 2013, ICML."""

    momentum: float = _near_one(0.9)
    """Fraction of the sum of past gradients that is kept per update; 0 for plain descent."""
    nesterov: bool = False
    """Whether the momentum looks one step ahead."""
    decay: float = _size(0.0)
    """L2 penalty of leaves with two axes or more, added to the gradient times the parameter; 0 for none."""
    clip: float = _size(0.0)
    """Largest global norm of the gradient; 0 clips nothing."""
    average: float = _near_one(0.0)
    """Decay of the moving average of the parameters, fraction kept per update; 0 keeps no average."""
    bits: Literal[32, 8] = _width()
    """Bits of a number in the momentum: 32, or 8 in blocks of 256 with a scale each."""

    def __attrs_post_init__(self) -> None:
        if self.bits != 32 and not self.momentum:
            raise ValueError(f"got SGD.bits={self.bits} without momentum, which is what has them; set one, or leave bits out")
        if self.nesterov and not self.momentum:
            raise ValueError("got SGD.nesterov without momentum; expected a momentum above 0: set one, or leave nesterov out")

    def build(self, spec: Tree, lr: Value, at: str = "") -> Transform:
        """Make the transform.

        Parameters
        ----------
        spec
            Tree of `param.Param`: what decays, and the multipliers of the learning rate.
        lr
            Learning rate.
        at
            Path of this value in the configuration, such as `optimizer`; empty for constants.

        Returns
        -------
        Transform.
        """
        near = _number(at, "momentum", 1.0 - self.momentum)
        momentum = [trace(near, nesterov=self.nesterov, bits=self.bits)] if self.momentum else []
        return chain(
            *_clip(at, self.clip),
            *_decay(at, self.decay, spec),
            *momentum,
            scale_by_rate(lr, param.rates(spec)),
            *_average(at, self.average),
        )


@attrs.frozen
class Lion:
    """The sign of a momentum, with decoupled weight decay. Chen et al. 2023, arXiv:2302.06675.

    Its learning rate is three to ten times smaller than that of AdamW, its decay as much larger.
    """

    decay: float = _size(0.3)
    """Weight decay of leaves with two axes or more, per update and unit of learning rate; 0 for none."""
    beta1: float = _near_one(0.9)
    """Share of the running mean in the update; the gradient has the rest."""
    beta2: float = _near_one(0.99)
    """Decay of the running mean of the gradient, fraction kept per update."""
    clip: float = _size(1.0)
    """Largest global norm of the gradient; 0 clips nothing."""
    average: float = _near_one(0.0)
    """Decay of the moving average of the parameters, fraction kept per update; 0 keeps no average."""
    bits: Literal[32, 8] = _width()
    """Bits of a number in the running mean: 32, or 8 in blocks of 256 with a scale each."""

    def build(self, spec: Tree, lr: Value, at: str = "") -> Transform:
        """Make the transform.

        Parameters
        ----------
        spec
            Tree of `param.Param`: what decays, and the multipliers of the learning rate.
        lr
            Learning rate.
        at
            Path of this value in the configuration, such as `optimizer`; empty for constants.

        Returns
        -------
        Transform.
        """
        return chain(
            *_clip(at, self.clip),
            scale_by_lion(_number(at, "beta1", 1.0 - self.beta1), _number(at, "beta2", 1.0 - self.beta2), self.bits),
            *_decay(at, self.decay, spec),
            scale_by_rate(lr, param.steady_rates(spec)),
            *_average(at, self.average),
        )


@attrs.frozen
class Muon:
    """Orthogonalised momentum for matrices, AdamW for the rest. Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982.

    The learning rate is that of the matrices; embeddings, heads, norms and biases have `rest` times it.
    """

    momentum: float = _near_one(0.95)
    """Decay of the running mean of a matrix's gradient, fraction kept per update."""
    decay: float = _size(0.1)
    """Weight decay of leaves with two axes or more, per update and unit of learning rate; 0 for none."""
    scaling: Literal["spectral", "rms"] = "spectral"
    """Size of a matrix's update: spectral, sqrt(max(1, out / in)); rms, as large as AdamW's, so that its rates carry over."""
    apart: str = attrs.field(default="embed|head", validator=_pattern)
    """Regular expression: matrices whose path matches it go to AdamW as well; empty for none."""
    rest: float = _size(0.1)
    """Learning rate of what goes to AdamW, as a multiple of the matrices' learning rate."""
    beta1: float = _near_one(0.9)
    """AdamW's decay of the running mean of the gradient, fraction kept per update."""
    beta2: float = _near_one(0.95)
    """AdamW's decay of the running mean of the squared gradient, fraction kept per update."""
    eps: float = _size(1e-8)
    """Added to the root of AdamW's mean square, in units of the gradient."""
    clip: float = _size(1.0)
    """Largest global norm of the gradient; 0 clips nothing."""
    average: float = _near_one(0.0)
    """Decay of the moving average of the parameters, fraction kept per update; 0 keeps no average."""
    bits: Literal[32, 8] = _width()
    """Bits of a number in the moments: 32, or 8 in blocks of 256 with a scale each."""

    def build(self, spec: Tree, lr: Value, at: str = "") -> Transform:
        """Make the transform.

        Parameters
        ----------
        spec
            Tree of `param.Param`: what is a matrix, what decays, and the multipliers of the learning rate.
        lr
            Learning rate of the matrices.
        at
            Path of this value in the configuration, such as `optimizer`; empty for constants.

        Returns
        -------
        Transform.

        Raises
        ------
        ValueError
            If no leaf is left to Muon.
        """
        labels = self._labels(spec)
        matrix = scale_by_muon(_number(at, "momentum", 1.0 - self.momentum), scaling=self.scaling, bits=self.bits)
        direction = {"matrix": matrix, "rest": _adam(at, self.beta1, self.beta2, self.eps, self.bits)}
        # A second routing, after the decay, so that `rest` scales the decay too: it multiplies the learning rate.
        share = {"matrix": identity(), "rest": scale(_number(at, "rest", self.rest))}
        return chain(
            *_clip(at, self.clip),
            route(spec, labels, {label: part for label, part in direction.items() if label in labels}),
            *_decay(at, self.decay, spec),
            route(spec, labels, {label: part for label, part in share.items() if label in labels}),
            scale_by_rate(lr, self._rates(spec, labels)),
            *_average(at, self.average),
        )

    def _rates(self, spec: Tree, labels: list[str]) -> Tree:
        """Leave the matrices' steps as they are: their size goes with the width already."""
        both = zip(labels, tree.leaves(param.rates(spec)), tree.leaves(param.steady_rates(spec)), strict=True)
        rates = [own if label == "matrix" and self.scaling == "spectral" else steady for label, own, steady in both]
        return tree.unflatten(tree.flatten(spec)[1], rates)

    def _labels(self, spec: Tree) -> list[str]:
        apart = re.compile(self.apart) if self.apart else None
        labels = [
            "matrix" if leaf.rank == 2 and not (apart and apart.search(path)) else "rest"
            for path, leaf in tree.named(spec).items()
        ]
        if "matrix" not in labels:
            raise ValueError(f"no leaf of {tree.paths(spec)} is a matrix outside {self.apart!r}; use AdamW, or change apart")
        return labels
