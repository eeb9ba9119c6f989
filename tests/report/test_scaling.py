"""The law is found again where it holds, and an interval covers what it says."""

import math
import random
import statistics

import pytest

from craft.errors import UsageError
from craft.report.scaling import Law, Point, averaged, bootstrap, fit, grouped, within

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


def test_an_interval_grows_with_the_noise_of_the_seeds():
    widths = []
    for noise in (0.001, 0.01):
        low, high = within(draw.loss(1e7, 2e8) for draw in bootstrap(grouped(made(noise, seeds=3)), draws=60))
        assert low < TRUE.loss(1e7, 2e8) * 1.05
        assert high > TRUE.loss(1e7, 2e8) * 0.95
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_noise_is_that_of_the_seeds():
    draws = bootstrap(grouped(made(0.01, seeds=4)), draws=60)
    assert 0.007 < statistics.stdev(draw.noise for draw in draws) < 0.013


def test_runs_of_one_seed_move_with_the_others():
    """Where one group of twelve has seeds, all are drawn with its noise; without any, the groups are what is drawn."""
    groups = grouped(made(0.0))
    several = [groups[0] + [groups[0][0]._replace(loss=groups[0][0].loss * 1.02)], *groups[1:]]
    assert len({draw.law.beta for draw in bootstrap(several, draws=20)}) > 10
    assert all(draw.noise == 0 for draw in bootstrap(groups, draws=20))


def test_a_law_lies_among_its_own_draws():
    groups = grouped(made(0.01, seeds=3))
    law = fit(averaged(groups))
    low, high = within(draw.law.loss(1e7, 2e8) for draw in bootstrap(groups, draws=60))
    assert low < law.loss(1e7, 2e8) < high
    assert averaged(groups)[0].loss == pytest.approx(math.exp(statistics.fmean(math.log(p.loss) for p in groups[0])))


def test_a_range_leaves_as_much_on_either_side():
    assert within(range(100), 0.9) == (5, 94)


def test_too_few_runs_make_no_law():
    with pytest.raises(UsageError, match="got 4 pairs of a size and a budget for a law of five"):
        fit(made(0.0)[:4])
