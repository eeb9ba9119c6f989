import pytest

from tools.bench.pairs import Ratio, ratio, spread


def test_ratios_are_taken_round_by_round():
    assert ratio([30.0, 50.0, 30.0], [10.0, 20.0, 10.0]) == Ratio(median=3.0, least=2.5, rounds=3)


def test_a_round_that_is_slow_for_both_changes_nothing():
    calm, noisy = ratio([4.0, 4.0], [2.0, 2.0]), ratio([4.0, 400.0], [2.0, 200.0])
    assert calm == noisy


@pytest.mark.parametrize(("over", "under"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_fit_are_refused(over, under):
    with pytest.raises(ValueError, match="expected as many of both"):
        ratio(over, under)


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
