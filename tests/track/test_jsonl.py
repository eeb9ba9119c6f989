"""The record: strict, equal in a repeated or resumed run, and cut where a resumed run starts."""

import json

import pytest

from craft.track import Info, Jsonl, Report, read


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_rows_are_strict_json_without_a_clock(drive, tmp_path):
    drive(Jsonl(), tmp_path)
    rows = strict(tmp_path / "metrics.jsonl")
    assert rows[1] == {"step": 2, "tokens": 20, "train/loss": 0.5, "odd": None, "far": None, "nonfinite": ["far", "odd"]}
    assert strict(tmp_path / "timings.jsonl")[0] == {"step": 1, "seconds": 0.5}
    back = read(tmp_path / "metrics.jsonl")[1]
    assert back["odd"] != back["odd"]
    assert back["step"] == 2


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_resumed_run_writes_the_same_bytes(drive, tmp_path, step):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    drive(Jsonl(), whole, last=4)
    drive(Jsonl(), parts, last=3)
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "torn')
    drive(Jsonl(), parts, first=step, last=4)
    for name in ("metrics.jsonl", "timings.jsonl", "samples.txt"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_a_run_that_starts_again_starts_a_new_record(tmp_path):
    for _ in range(2):
        sink = Jsonl()
        sink.start(Info(name="run", directory=tmp_path, config={}, steps=9))
        sink.report(Report(0, 0, {"eval/loss": 3.0}))
        sink.finish("finished", {})
    assert strict(tmp_path / "metrics.jsonl") == [{"step": 0, "tokens": 0, "eval/loss": 3.0}]


def test_samples_cannot_fake_a_heading(tmp_path):
    sink = Jsonl()
    sink.start(Info(name="run", directory=tmp_path, config={}, steps=9))
    sink.sample(1, "a", "x\n== step 99, after\r== step 99\u2028== step 99")
    sink.finish("finished", {})
    again = Jsonl()
    again.start(Info(name="run", directory=tmp_path, config={}, steps=9, step=1))
    assert (tmp_path / "samples.txt").read_text().startswith('== step 1, after the prompt "a"\n    x\n    == step 99, after\\r')
    again.finish("finished", {})


def test_a_name_that_the_record_uses_is_refused(tmp_path):
    sink = Jsonl()
    sink.start(Info(name="run", directory=tmp_path, config={}, steps=9))
    with pytest.raises(ValueError, match="got a metric named tokens"):
        sink.report(Report(1, 1, {"tokens": 3.0}))
    sink.finish("failed", {})


def test_messages_carry_the_time_in_utc(drive, tmp_path):
    drive(Jsonl(), tmp_path)
    assert (tmp_path / "log.txt").read_text().splitlines()[0].endswith("Z hello [bold] \\x1b[31m")
