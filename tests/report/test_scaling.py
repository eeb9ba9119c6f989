"""The law is found again where it holds, and an interval covers what it says."""

import math
import random

import pytest

from craft.errors import UsageError
from craft.report.scaling import Law, Point, fit, grouped, interval

TRUE = Law(0.8, math.log(40.0), 0.35, math.log(300.0), 0.3)
SIZES, DATA = (1e5, 3e5, 1e6, 3e6), (2e6, 1e7, 5e7)


def made(noise: float, seeds: int = 1) -> list[Point]:
    source = random.Random(1)
    places = [(size, data) for size in SIZES for data in DATA for _ in range(seeds)]
    return [Point(size, data, TRUE.loss(size, data) * math.exp(source.gauss(0, noise))) for size, data in places]


def test_a_law_is_evaluated_as_it_is_written():
    assert TRUE.loss(1e6, 1e7) == pytest.approx(0.8 + 40 / 1e6**0.35 + 300 / 1e7**0.3)


def test_the_law_is_found_again():
    law = fit(made(0.0))
    assert law.loss(1e7, 2e8) == pytest.approx(TRUE.loss(1e7, 2e8), rel=5e-3)
    for size in SIZES:
        assert law.loss(size, 1e7) == pytest.approx(TRUE.loss(size, 1e7), rel=1e-3)
    assert (law.alpha, law.beta) == pytest.approx((TRUE.alpha, TRUE.beta), rel=0.1)


def test_the_best_size_is_where_the_law_is_least():
    best = TRUE.best_size(1e15, 6.0)
    losses = {factor: TRUE.loss(best * factor, 1e15 / 6 / (best * factor)) for factor in (0.8, 1.0, 1.25)}
    assert min(losses, key=lambda factor: losses[factor]) == 1.0


def test_an_interval_grows_with_the_noise_of_the_seeds():
    widths = []
    for noise in (0.001, 0.01):
        low, high = interval(grouped(made(noise, seeds=3)), 1e7, 2e8, draws=40)
        assert low < high
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_too_few_runs_make_no_law():
    with pytest.raises(UsageError, match="got 4 runs for a law of five numbers"):
        fit(made(0.0)[:4])
