"""`craft sweep` as it is typed."""

import json

import pytest

from craft.sweep.journal import Journal

FAST = ["--compile", "none", "--precision", "fp32"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "sweep"


def trials(out):
    with Journal(out / "journal.sqlite") as journal:
        return [row.changes for row in journal.trials()]


def test_a_grid_with_seeds_is_trained_shown_and_left_as_it_is(craft, small, out):
    asked = ["sweep", "char_1m", "--grid", "lr=0.01,0.02", "--seeds", "2", *small, "--out", out]
    code, shown, said = craft(*asked)
    assert code == 0
    assert "4 trials in packs of 4" in said
    assert shown.count("finished") == 4
    assert "seeds  setting" in shown
    assert f"craft train char_1m --config {out}/trials/000" in shown
    assert all(len(line) <= 80 or str(out) in line for line in shown.splitlines())
    again, later, _ = craft("sweep", "--resume", out)
    assert (again, later) == (0, shown)
    assert craft("sweep", "show", out).out == shown
    assert craft(*asked).code == 2  # it is taken


def test_the_best_is_trained_anew_by_what_is_shown(craft, small, out, tmp_path):
    shown = craft("sweep", "char_1m", "--grid", "lr=0.01,0.02", *small, "--out", out).out
    command = shown.strip().splitlines()[-1].split()
    assert command[:2] == ["craft", "train"]
    assert craft(*command[1:], "--out", tmp_path / "anew").code == 0
    best = shown.partition("The best is trial ")[2].split(",")[0]
    one, other = (
        json.loads((place / "config.json").read_text()) for place in (tmp_path / "anew", out / "trials" / f"000{best}")
    )
    assert one["experiment"]["values"] == other["experiment"]["values"]


def test_a_trial_is_a_run_for_the_other_commands(craft, small, out):
    craft("sweep", "char_1m", "--grid", "lr=0.01,0.02", *small, "--out", out)
    runs = [out / "trials" / "0000", out / "trials" / "0001"]
    assert craft("compare", *runs).code == 0
    code, shown, _ = craft("evaluate", runs[0], "--json")
    assert code == 0
    assert json.loads(shown)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (["--zip", "lr=0.01,0.02", "seed=1,2"], [{"lr": 0.01, "seed": 1}, {"lr": 0.02, "seed": 2}]),
        (["--grid", "lr=0.01", "--grid", "model.dropout=0,0.1"], [{"lr": 0.01, "model.dropout": d} for d in (0, 0.1)]),
        (["--seeds=2"], [{"seed": 0}, {"seed": 1}]),
    ],
)
def test_spaces_as_they_are_typed(craft, small, out, space, expected):
    assert craft("sweep", "char_1m", *space, *small, "--out", out).code == 0
    assert trials(out) == expected


def test_draws_are_those_of_their_seed(craft, small, out, tmp_path):
    space = ["--random", "3", "lr=log:1e-3:1e-1", "model.dropout=0:0.3"]
    craft("sweep", "char_1m", *space, *small, "--out", out)
    found = trials(out)
    assert len(found) == 3
    assert all(1e-3 <= one["lr"] <= 1e-1 and 0 <= one["model.dropout"] <= 0.3 for one in found)
    craft("sweep", "char_1m", *space, *small, "--out", tmp_path / "other", "--draw-seed", "1")
    assert trials(tmp_path / "other") != found


def test_a_space_in_a_file(craft, small, out, tmp_path):
    (tmp_path / "space.toml").write_text(
        'seeds = 2\n[grid]\nlr = [0.01, 0.02]\nmodel.dropout = 0.1\n[sobol]\ntrials = 1\nlr = "log:1e-3:1e-1"\n',
        encoding="utf-8",
    )
    assert craft("sweep", "char_1m", "--space", tmp_path / "space.toml", *small, "--out", out).code == 0
    found = trials(out)
    assert found[:2] == [{"lr": 0.01, "model.dropout": 0.1, "seed": 0}, {"lr": 0.01, "model.dropout": 0.1, "seed": 1}]
    assert len(found) == 6


def test_a_trial_that_fails_is_told_by_the_code(craft, small, out):
    code, shown, _ = craft("sweep", "char_1m", "--grid", "context=16,100000", *small, "--out", out)
    assert code == 1
    assert "trial 1 failed: " in shown
    assert "The best is trial 0" in shown


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["char_1m"], "got a space without a trial; give values, such as --grid lr=0.01,0.02"),
        (["char_1m", "--grid"], "got --grid without a value"),
        (["char_1m", "--grid", "lrr=1"], "got --grid lrr=1, but the experiment has no 'lrr'; did you mean lr?"),
        (["char_1m", "--grid", "width=1"], "did you mean model.width?"),
        (["char_1m", "--grid", "lr"], "got --grid lr; expected PATH=VALUES, such as lr=0.01,0.02"),
        (["char_1m", "--grid", "lr=0:1"], "got a range for lr in --grid, which takes values"),
        (["char_1m", "--grid", "lr=-1"], "got the trial lr=-1, but lr: got lr=-1"),
        (["char_1m", "--grid", "lr=1", "lr=2"], "got lr twice in --grid"),
        (["char_1m", "--random", "0", "lr=0:1"], "got 0 trials to draw; expected 1 or more"),
        (["char_1m", "--random", "lr=0:1"], "got --random lr=0:1; expected a whole number"),
        (["char_1m", "--seeds", "0"], "got 0 seeds; expected 1 or more"),
        (["char_1m", "--seeds", "2", "--compile", "block"], "got --compile block for a sweep"),
        (["char_1m", "--seeds", "2", "--pack", "0"], "got --pack 0; expected 1 or more"),
        (["nothing", "--seeds", "2"], "got 'nothing' as an experiment"),
        (["--seeds", "2"], "got no experiment to sweep"),
        (["--resume", "nowhere"], "got nowhere as a sweep, but it has no journal.sqlite"),
        (["--resume", "nowhere", "--seeds", "2"], "got --resume with other flags"),
        (["show"], "got nothing; expected one directory: craft sweep show DIR"),
        (["repair", "nowhere"], "got nowhere as a sweep"),
    ],
)
def test_misuse_is_one_sentence(craft, tmp_path, monkeypatch, argv, problem):
    monkeypatch.chdir(tmp_path)
    code, _, said = craft("sweep", *argv)
    assert code == 2
    assert problem in said
    assert not (tmp_path / "outputs").exists()


def test_a_metric_that_nobody_reports_is_told_with_those_that_are(craft, small, out):
    code, shown, said = craft("sweep", "char_1m", "--grid", "lr=0.01", "--metric", "eval/los", *small, "--out", out)
    assert code == 2
    assert "got the metric eval/los, which no trial has reported; expected one of eval/accuracy" in said
    assert "finished" in shown


def test_a_damaged_journal_is_repaired(craft, small, out):
    craft("sweep", "char_1m", "--grid", "lr=0.01,0.02", *small, "--out", out)
    place = out / "journal.sqlite"
    code, shown, _ = craft("sweep", "repair", out)
    assert code == 0
    assert "2 trials, 2 of them ended, were read into" in shown
    place.write_bytes(b"x" * 5000)
    code, _, said = craft("sweep", "show", out)
    assert code == 1
    assert f"craft sweep repair {out}" in said
    (out / "journal-recovered.sqlite").replace(place)
    assert craft("sweep", "show", out).code == 0
