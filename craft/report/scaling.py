"""Laws of scaling: loss as a function of parameters and data. Hoffmann et al. 2022, arXiv:2203.15556, approach 3.

L(N, D) = E + A / N^alpha + B / D^beta, fitted by the Huber loss of the logarithm over a grid of starts; intervals by a
bootstrap over seeds (Efron 1979, doi:10.1214/aos/1176344552).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from craft.errors import UsageError
from craft.types import Tensor

__all__ = ["Draw", "Law", "Point", "averaged", "bootstrap", "fit", "grouped", "within"]

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


def fit(points: Sequence[Point]) -> Law:
    """Fit a law.

    Parameters
    ----------
    points
        Runs of at least five pairs of a size and an amount of data.

    Raises
    ------
    UsageError
        If these are too few.
    """
    places = len({(p.size, p.data) for p in points})
    if places < _FEWEST:
        raise UsageError(f"got {places} pairs of a size and a budget for a law of five numbers; train at least {_FEWEST}")
    size_N, data_N, loss_N = _logs(points)
    starts = itertools.product((0.2, 0.5), (0.2, 0.5), (0.3, 0.8))
    found = [_descend(size_N, data_N, loss_N, _start(size_N, data_N, loss_N, *start)) for start in starts]
    return min(found, key=lambda one: one[1])[0]


class Draw(NamedTuple):
    """One sample of a bootstrap: the law of its runs, and the share by which one more run's loss would differ from it."""

    law: Law
    noise: float

    def loss(self, size: float, data: float) -> float:
        """Return the bits a byte of one run of that size, drawn with its seed."""
        return self.law.loss(size, data) * math.exp(self.noise)


def bootstrap(groups: Sequence[Sequence[Point]], *, draws: int = 300) -> list[Draw]:
    """Fit the law again and again, with seeds drawn anew.

    What seeds change is drawn from all groups of several seeds together, as the logarithm of a loss less its group's mean,
    widened by sqrt(n / (n - 1)) for the mean that was taken from the same n; runs with one seed are moved as much. Where no
    group has several seeds, the groups themselves are drawn, and what one more run would differ by is taken as nothing.

    Parameters
    ----------
    groups
        The runs of each size and budget, one a seed.
    draws
        Samples.

    Raises
    ------
    UsageError
        If the runs are too few for a law.
    """
    source = random.Random(0)  # noqa: S311 - resampling, no secret
    law, noise = fit(averaged(groups)), _noise(groups)
    found = []
    for _ in range(draws):
        if noise:
            drawn = [_moved(group, source.choice(noise)) for group in groups for _ in group]
        else:
            drawn = [group[0] for group in source.choices(groups, k=len(groups))]
        if len({(p.size, p.data) for p in drawn}) >= _FEWEST:
            found.append(Draw(_descend(*_logs(drawn), _free(law))[0], source.choice(noise or [0.0])))
    return found


def _noise(groups: Sequence[Sequence[Point]]) -> list[float]:
    several = [[math.log(point.loss) for point in group] for group in groups if len(group) > 1]
    return [(one - sum(logs) / len(logs)) * math.sqrt(len(logs) / (len(logs) - 1)) for logs in several for one in logs]


def averaged(groups: Sequence[Sequence[Point]]) -> list[Point]:
    """Return each run at its group's mean, in logarithms: what a law is fitted to where intervals come from a bootstrap."""
    return [_moved(group, 0.0) for group in groups for _ in group]


def _moved(group: Sequence[Point], noise: float) -> Point:
    """Return a run at the mean of a group, moved by a share."""
    mean = sum(math.log(point.loss) for point in group) / len(group)
    return group[0]._replace(loss=math.exp(mean + noise))


def within(values: Iterable[float], share: float = 0.9) -> tuple[float, float]:
    """Return the range in which a share of the values lies, as much beyond either end."""
    ordered = sorted(values)
    cut = round((1 - share) / 2 * len(ordered))
    return ordered[cut], ordered[-1 - cut]


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


def _start(size_N: Tensor, data_N: Tensor, loss_N: Tensor, alpha: float, beta: float, part: float) -> Tensor:
    """Start where `part` of the least loss is the floor and the rest is shared evenly."""
    floor = part * loss_N.min()
    rest = float(((loss_N - floor).mean() / 2).log())
    return _free(Law(float(floor), rest + alpha * float(size_N.mean()), alpha, rest + beta * float(data_N.mean()), beta))


def _free(law: Law) -> Tensor:
    """Return the numbers that are descended on: what must be positive as its logarithm."""
    return torch.tensor(
        [math.log(law.floor), law.log_a, math.log(law.alpha), law.log_b, math.log(law.beta)], dtype=torch.float64
    )


def _descend(size_N: Tensor, data_N: Tensor, loss_N: Tensor, start: Tensor) -> tuple[Law, float]:
    """Descend from a start; return the law and its cost."""
    free = start.clone().requires_grad_()
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
