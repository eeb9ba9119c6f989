"""`craft replay` as it is typed."""

import json

import pytest


@pytest.fixture
def every(craft, small, tmp_path):
    """Train a run that reports every step."""

    def run(name, *more):
        out = tmp_path / name
        return out, craft("train", "char_1m", *small, "--track.every", "1", "--out", out, *more)

    return run


def test_the_last_step_is_made_again(craft, every):
    out, _ = every("run")
    code, shown, _ = craft("replay", out)
    assert code == 0
    assert f"{out}, step 4" in shown
    assert all(len(line) <= 80 or str(out) in line for line in shown.splitlines())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    code, shown, _ = craft("replay", out, "--step", "3", "--json")
    found = json.loads(shown)
    assert found["metrics"]["loss"] == rows[2]["train/loss"] == found["recorded"]["loss"]
    assert found["samples"] == [8, 9, 10, 11]
    assert len(found["losses"]) == 4


def test_a_change_stands_beside_it(craft, every):
    out, _ = every("run")
    code, shown, _ = craft("replay", out, "--step", "4", "--set", "model.dropout=0.5", "--json")
    found = json.loads(shown)
    assert code == 0
    assert found["changed"]["loss"] != found["metrics"]["loss"]
    code, shown, _ = craft("replay", out, "--step", "4", "--set", "model.dropout=0.5")
    assert "model.dropout=0.5" in shown


def test_a_rate_is_judged_by_the_loss_after_the_step(craft, every):
    out, _ = every("run")
    found = json.loads(craft("replay", out, "--step", "2", "--set", "lr=0.5", "--json").out)
    assert found["changed"]["loss"] == found["metrics"]["loss"]
    assert found["changed_after"] != found["after"]
    assert found["after"] < found["metrics"]["loss"]
    assert "loss after" in craft("replay", out, "--step", "2").out


def test_a_fork_is_told_by_what_was_changed(craft, every, tmp_path):
    one, other = every("a")[0], tmp_path / "b"
    assert craft("train", "char_1m", "--fork", one, "--lr", "0.01", "--steps", "6", "--out", other).code == 0
    for runs in ((one, "--against", other), (other, "--against", one)):
        code, shown, _ = craft("replay", *runs)
        assert code == 1
        assert shown.startswith(f"{other} was forked from {one} after step 4; changed: ")
        assert "experiment.values.lr: 0.02 there, 0.01 here" in shown
    assert json.loads(craft("replay", one, "--against", other, "--json").out)["step"] == 4


def test_a_step_that_was_not_finite_is_found(craft, every):
    out, ended = every("bad", "--lr", "1e30")
    assert ended.code == 1
    assert f"craft replay {out} --step 2 makes that step again" in ended.err
    told = json.loads((out / "halted.json").read_text(encoding="utf-8"))
    assert (told["step"], told["samples"]) == (2, [4, 5, 6, 7])
    code, shown, _ = craft("replay", out)
    assert code == 0
    assert "step 2" in shown
    assert "nan" in shown
    code, shown, _ = craft("replay", out, "--json")
    assert json.loads(shown)["metrics"] == told["metrics"]
    assert told["metrics"]["grad_norm"] == "nan"


def test_two_runs_are_told_apart(craft, every):
    one, other, same = every("a")[0], every("b", "--lr", "0.01")[0], every("c")[0]
    code, shown, _ = craft("replay", one, "--against", other)
    assert code == 1
    assert "step 1 is the first that differs, in params." in shown
    code, shown, _ = craft("replay", one, "--against", same)
    assert (code, "agree to the bit, 4 steps" in shown) == (0, True)
    code, shown, _ = craft("replay", one, "--against", other, "--json")
    assert json.loads(shown)["step"] == 1


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--step", "9"], "got --step 9; expected 1 to 4"),
        (["--step", "1", "--set", "lrr=1"], "got --set lrr=1, but there is no 'lrr' (did you mean lr"),
        (["--step", "1", "--set", "lr"], "got --set lr; expected NAME=VALUE"),
        (["--step", "1", "--set", "model.width=32"], "gives the state another shape"),
        (["--step", "1", "--set", "lr=-1"], "lr"),
        (["--step", "1", "--against", "x"], "got --against with --step"),
    ],
)
def test_what_cannot_be_is_one_sentence(craft, finished, flags, problem):
    code, _, err = craft("replay", finished, *flags)
    assert code == 2
    assert problem in err
