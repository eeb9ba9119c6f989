import pytest

from tools.bench.sections.default import fit, length, predict


def test_a_start_and_a_rate_come_of_one_run():
    timings = [{"step": step, "seconds": 7.0 + 0.5 * step} for step in range(5, 61, 5)]
    rate = fit(40.0, 60, timings)
    assert rate == pytest.approx({"start": 10.0, "update": 0.5})
    assert predict(rate, 60) == pytest.approx(40.0)


def test_a_length_is_what_the_best_mode_makes():
    rates = {"none": {"start": 2.0, "update": 1.0}, "step": {"start": 20.0, "update": 0.1}}
    assert length(rates, 30.0) == 100
    assert length(rates, 10.0) == 8
    assert length(rates, 1.0) == 1
