"""What the charts are drawn of."""

import json

from craft.report.curves import axes, curves, panels, subjects
from craft.report.story import read


def test_only_what_is_known_is_an_axis(make):
    whole = read(make("a", model={"flops_per_step": 1e9}))
    assert [name for name, _ in axes([whole])] == ["step", "tokens", "flops", "clock/seconds"]
    bare = make("b", tokens=0)
    (bare / "timings.jsonl").unlink()
    assert [name for name, _ in axes([read(bare)])] == ["step"]
    assert [name for name, _ in axes([read(bare), whole])] == ["step", "tokens", "flops", "clock/seconds"]


def test_subjects_and_panels_share_all_there_is(make, seen):
    found = seen(make("a", metrics={"eval/bits": 1.0, "other/thing": 2.0}))
    assert subjects(found) == ["loss", "accuracy", "bits"]
    assert [name for name, _ in panels(found)] == [
        "train/lr", "train/grad_norm", "clock/tokens_per_second", "clock/memory_mb", "other/thing"
    ]  # fmt: skip


def test_columns_are_plain_json_of_equal_length(make, seen):
    found = curves(seen(make("a"), make("b", seed=1)))
    data = json.loads(json.dumps(found, allow_nan=False))
    columns = data["groups"][0]["runs"][1]["columns"]
    assert {len(column) for column in columns.values()} == {20}
    assert columns["eval/loss"].count(None) == 16
    assert list(data["t"]) == ["2"]


def test_a_long_run_is_thinned_and_keeps_its_end_and_its_evaluations(make, seen):
    run = make("a", upto=2)
    rows = [{"step": step, "tokens": step, "train/loss": 1.0} for step in range(1, 9000)]
    rows[4001]["eval/loss"] = 2.0
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = curves(seen(run))["groups"][0]["runs"][0]["columns"]
    assert 1500 < len(columns["step"]) <= 2002
    assert columns["step"][-1] == 8999
    assert columns["eval/loss"].count(2.0) == 1
