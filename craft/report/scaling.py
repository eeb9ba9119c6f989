"""Laws of scaling: loss as a function of parameters and data. Hoffmann et al. 2022, arXiv:2203.15556, approach 3.

L(N, D) = E + A / N^alpha + B / D^beta, fitted by the Huber loss of the logarithm over a grid of starts; intervals by resampling
the seeds of each size and budget (Efron 1979, doi:10.1214/aos/1176344552).
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch

from craft.errors import UsageError
from craft.types import Tensor

__all__ = ["Law", "Point", "fit", "grouped", "interval"]

_HUBER = 1e-3
_FEWEST = 5


class Point(NamedTuple):
    """One run that was trained to its end.

    Attributes
    ----------
    size
        Parameters, those of embedding and head left out.
    data
        Bytes of text that were trained on.
    loss
        Bits a byte on the held-out text.
    """

    size: float
    data: float
    loss: float


class Law(NamedTuple):
    """L(N, D) = floor + A / N^alpha + B / D^beta, with the logarithms of A and B."""

    floor: float
    log_a: float
    alpha: float
    log_b: float
    beta: float

    def loss(self, size: float, data: float) -> float:
        """Return the bits a byte that the law promises."""
        return float(_losses(torch.tensor(self, dtype=torch.float64).unbind(), *_logs([Point(size, data, 1.0)])[:2])[0])

    def best_size(self, compute: float, each: float) -> float:
        """Return the parameters that are best for a budget.

        Parameters
        ----------
        compute
            Floating-point operations.
        each
            Operations for one parameter and one byte: 6 by the tokens a byte.
        """
        gain = (self.alpha * torch.tensor(self.log_a).exp() / (self.beta * torch.tensor(self.log_b).exp())).item()
        return float((gain * (compute / each) ** self.beta) ** (1 / (self.alpha + self.beta)))


def fit(points: Sequence[Point]) -> Law:
    """Fit a law.

    Parameters
    ----------
    points
        Runs of at least three sizes or budgets, five in all.

    Raises
    ------
    UsageError
        If these are too few.
    """
    if len({(p.size, p.data) for p in points}) < _FEWEST:
        raise UsageError(f"got {len(points)} runs for a law of five numbers; train at least {_FEWEST} sizes and budgets")
    size_N, data_N, loss_N = _logs(points)
    starts = itertools.product((0.2, 0.5), (0.2, 0.5), (0.3, 0.8))
    found = [_descend(size_N, data_N, loss_N, *start) for start in starts]
    return min(found, key=lambda one: one[1])[0]


def interval(
    groups: Sequence[Sequence[Point]], size: float, data: float, *, draws: int = 200, share: float = 0.9
) -> tuple[float, float]:
    """Return the range in which a prediction lies when the seeds of each size and budget are drawn anew.

    Parameters
    ----------
    groups
        The runs of each size and budget, one a seed. With one seed each, what is drawn anew are the groups.
    size, data
        Parameters and bytes of the run that is predicted.
    draws
        Samples.
    share
        Share of the samples that lie within.
    """
    source = random.Random(0)  # noqa: S311 - resampling, no secret
    found = []
    for _ in range(draws):
        if max(map(len, groups)) > 1:
            drawn = [source.choice(group) for group in groups for _ in group]
        else:
            drawn = [group[0] for group in source.choices(groups, k=len(groups))]
        if len({(p.size, p.data) for p in drawn}) >= _FEWEST:
            found.append(fit(drawn).loss(size, data))
    found.sort()
    cut = int((1 - share) / 2 * len(found))
    return found[cut], found[-1 - cut]


def grouped(points: Sequence[Point]) -> list[list[Point]]:
    """Put the seeds of one size and budget together."""
    groups: dict[tuple[float, float], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.size, point.data].append(point)
    return list(groups.values())


def _logs(points: Sequence[Point]) -> tuple[Tensor, Tensor, Tensor]:
    size_N, data_N, loss_N = torch.tensor(points, dtype=torch.float64).unbind(1)
    return size_N.log(), data_N.log(), loss_N


def _losses(law: Sequence[Tensor], size_N: Tensor, data_N: Tensor) -> Tensor:
    floor, log_a, alpha, log_b, beta = law
    return floor + (log_a - alpha * size_N).exp() + (log_b - beta * data_N).exp()


def _descend(size_N: Tensor, data_N: Tensor, loss_N: Tensor, alpha: float, beta: float, part: float) -> tuple[Law, float]:
    """Descend from one start, at which `part` of the least loss is the floor and the rest is shared evenly."""
    floor = part * loss_N.min()
    rest = ((loss_N - floor).mean() / 2).log()
    first = [
        floor.log(),
        rest + alpha * size_N.mean(),
        torch.tensor(alpha).log(),
        rest + beta * data_N.mean(),
        torch.tensor(beta).log(),
    ]
    free = torch.stack([x.double() for x in first]).requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def law() -> list[Tensor]:
        floor, log_a, alpha, log_b, beta = free.unbind()
        return [floor.exp(), log_a, alpha.exp(), log_b, beta.exp()]

    def cost() -> Tensor:
        wrong_N = _losses(law(), size_N, data_N).log() - loss_N.log()
        return torch.nn.functional.huber_loss(wrong_N, torch.zeros_like(wrong_N), delta=_HUBER)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = cost()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return Law(*(float(x) for x in law())), float(cost().nan_to_num(torch.inf))
