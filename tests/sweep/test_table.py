"""What a sweep shows: the best first, and means over seeds."""

import math

import pytest

from craft.report.interval import interval
from craft.sweep.journal import Row
from craft.sweep.table import order, settings, table


def row(number, status="finished", changes=None, **result):
    result = {name.replace("_", "/", 1): value for name, value in result.items()}
    return Row(number, changes or {"lr": number / 10}, status, "", 0.0, 1, 8, result, "", 1.0)


def test_the_best_is_first_and_what_is_not_finite_last():
    rows = [
        row(0, eval_loss=0.3),
        row(1, eval_loss=math.nan),
        row(2, eval_loss=-math.inf),
        row(3, eval_loss=0.2),
        row(4, "failed"),
    ]
    assert [one.number for one in order(rows, "eval/loss")] == [3, 0, 1, 2, 4]
    assert [one.number for one in order([row(0, eval_accuracy=0.1), row(1, eval_accuracy=0.9)], "eval/accuracy")] == [1, 0]


def test_the_table_fits_a_terminal():
    rows = [row(0, eval_loss=1.25), row(1, "diverged", {"model.pattern.0.heads": 4, "data.tokenizer": "x" * 99})]
    lines = table(rows, "eval/loss").splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == ["0", "finished", "8", "1.2500", "lr=0"]
    assert lines[2].split()[:4] == ["1", "diverged", "8", "-"]
    assert lines[2].endswith("...")


def test_settings_have_the_mean_of_their_seeds():
    values = {0.1: (1.0, 1.2, 1.4), 0.2: (0.9, 0.8, math.nan)}
    rows = [
        row(10 * place + seed, changes={"lr": lr, "seed": seed}, eval_loss=value)
        for place, (lr, found) in enumerate(values.items())
        for seed, value in enumerate(found)
    ]
    _, first, second = settings(rows, "eval/loss").splitlines()
    assert first.split() == ["0.8500", f"{interval([0.9, 0.8]).half:.4f}", "2/3", "lr=0.2"]
    assert second.split() == ["1.2000", f"{interval([1.0, 1.2, 1.4]).half:.4f}", "3", "lr=0.1"]


@pytest.mark.parametrize("rows", [[], [row(0, eval_loss=1.0), row(1, eval_loss=2.0)]])
def test_without_seeds_there_are_no_means(rows):
    assert settings(rows, "eval/loss") == ""
