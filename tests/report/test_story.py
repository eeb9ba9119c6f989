"""A run read back: whole, running, broken off, resumed."""

import json
import math

import pytest

from craft.errors import UsageError
from craft.report import read
from craft.report.story import CLOCK, SPEED


def test_a_whole_run(make):
    story = read(make("run", model={"parameters": 1234, "flops_per_step": 1e9}))
    assert (story.step, story.steps, story.finished) == (40, 40, True)
    assert story.names == ("train/loss", "train/grad_norm", "train/lr", "eval/loss", "eval/accuracy")
    assert (story.tokens, story.flops, story.seconds, story.parameters) == (4000, 4e10, 20.0, 1234)
    assert (story.speed, story.memory) == (2021.0, 540.0)
    assert len(story.column("eval/loss")) == 4
    assert story.last("eval/loss") == pytest.approx(story.rows[-1]["train/loss"] + 0.1)
    assert story.last("eval/nothing") is None


def test_a_run_that_is_still_writing(make):
    run = make("run", upto=20)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 22, "train/lo')
    (run / "timings.jsonl").unlink()
    (run / "samples.txt").unlink()
    story = read(run)
    assert (story.step, story.finished, story.samples) == (20, False, ())
    assert (story.flops, story.seconds, story.speed, story.memory, story.parameters) == (None, None, None, None, None)


def test_the_seconds_of_a_resumed_run_are_counted_on(make):
    run = make("run")
    rows = [json.loads(line) for line in (run / "timings.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows[10:]:
        row["seconds"] -= rows[9]["seconds"]
    (run / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    column = read(run).column(CLOCK)
    assert column == [step * 0.5 for step in range(2, 41, 2)]
    assert column == sorted(column)


def test_a_speed_of_nothing_is_none(make):
    run = make("run", upto=4)
    rows = '{"step": 2, "seconds": 1.0, "tokens_per_second": 0.0}\n{"step": 3, "seconds": 2.0}\n'
    (run / "timings.jsonl").write_text(rows, encoding="utf-8")
    story = read(run)
    assert (story.column(SPEED), story.column(CLOCK)) == ([], [1.0])


def test_numbers_that_are_not_finite_and_values_that_are_none(make):
    run = make("run", upto=2)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "train/loss": null, "nonfinite": ["train/loss"], "eval/name": "a", "eval/yes": true}\n')
    story = read(run)
    assert math.isnan(story.rows[-1]["train/loss"])
    assert not {"eval/name", "eval/yes"} & set(story.names)


def test_what_cannot_be_read(make, tmp_path):
    run = make("run")
    for nothing in ("", '{"step": 1, "tokens": 0}\n'):
        (run / "metrics.jsonl").write_text(nothing, encoding="utf-8")
        with pytest.raises(UsageError, match="has no metrics yet"):
            read(run)
    (run / "metrics.jsonl").write_text('{"loss": 1.0}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="a row that has no step"):
        read(run)
    (run / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json"):
        read(run)
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "nowhere")
