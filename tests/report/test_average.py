"""One curve of several seeds."""

import statistics

from craft.report.average import average
from craft.report.interval import quantile
from craft.report.story import CLOCK


def test_the_mean_is_taken_where_every_seed_has_a_value(make, seen):
    [group] = seen(make("a"), make("b", seed=1), make("c", seed=2, upto=20)).groups
    found = average(group, "step", "train/loss")
    assert [point.x for point in found] == list(range(2, 21, 2))
    values = [story.rows[4]["train/loss"] for story in group.stories]
    assert found[4].y == statistics.fmean(values)
    assert found[4].half == quantile(2) * statistics.stdev(values) / 3**0.5


def test_a_metric_or_an_axis_that_is_not_there(make, seen):
    run = make("a", held=False)
    (run / "timings.jsonl").unlink()
    [group] = seen(run).groups
    assert average(group, "step", "eval/loss") == []
    assert average(group, CLOCK, "train/loss") == []
