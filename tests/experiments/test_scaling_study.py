"""The study trains what is missing, once, and says what it found."""

import json
import subprocess
import sys

import pytest

from craft.errors import UsageError
from experiments.scaling_study import Study, main, rows

FLAGS = [
    "--plan",
    "2e8:100k 4e8:100k",
    "--kinds",
    "char",
    "--batch",
    "2",
    "--context",
    "16",
    "--division",
    "contiguous",
    "--split",
    "0.8,0.1,0.1",
]


def test_the_plan_names_every_run_and_holds_out_the_largest_budget():
    planned = list(rows(Study()))
    assert len({row.name for row in planned}) == len(planned) == 2 * (3 * 3 + 2 * 4 + 3 + 1)
    assert {row.budget for row in planned if row.held_out} == {1.28e14}
    assert {row.seed for row in planned if row.budget == 4e12} == {0, 1, 2}
    assert {row.seed for row in planned if row.budget == 6.4e13} == {0}


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ("4e12", "got the plan"),
        ("4e12:1b", "got the sizes 1b; expected some of 100k"),
        ("4e12:1m*x", "got the plan"),
        ("4e12:1m*0", r"got the budget 4e\+12 for 0 seeds"),
        ("-1:1m", "got the budget -1 for 1 seeds"),
        ("inf:1m", "got the budget inf"),
        ("", "got the sizes none"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(plan, problem):
    with pytest.raises(UsageError, match=problem):
        Study(plan=plan)


@pytest.fixture
def small(monkeypatch):
    """Runs that are quick: uncompiled, with two tokens for a sample."""
    run = subprocess.run
    quick = ["--device", "cpu", "--compile", "none", "--track.wandb", "off", "--sample.tokens", "2"]

    def called(command, **more):
        return run([*command, *(quick if "experiments.char_1m" in command else ["--device", "cpu"])], **more)

    monkeypatch.setattr(subprocess, "run", called)


def test_what_is_there_is_not_trained_again(tmp_path, text, small, monkeypatch, capsys):
    flags = [*FLAGS, "--source", str(text), "--out", str(tmp_path / "study"), "--jobs", "2"]
    assert main(flags) == 0
    told = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert [one["budget"] for one in told["runs"]] == [2e8, 4e8]
    assert all(one["flops"] == pytest.approx(one["budget"], rel=0.2) for one in told["runs"])
    assert all(one["early"] > 0 and 0 <= one["calibration_error"] <= 1 for one in told["runs"])
    assert "train at least 5" in told["laws"]["char"]["not_fitted"]
    assert (tmp_path / "study" / "compare.html").stat().st_size > 10_000
    assert "| char | 100k |" in (tmp_path / "study" / "study.md").read_text(encoding="utf-8")
    assert (tmp_path / "study" / "law-char.svg").stat().st_size > 1000
    monkeypatch.setattr(subprocess, "run", lambda *a, **more: pytest.fail("trained again"))
    assert main(flags) == 0
    assert "| char | 100k |" in capsys.readouterr().out
    with pytest.raises(UsageError, match="has another batch and steps; name another --out"):
        main([*flags, "--batch", "3"])


def test_a_run_that_fails_leaves_the_others(tmp_path, text, small, capsys):
    place = tmp_path / "study" / "runs"
    flags = [*FLAGS, "--source", str(text), "--out", str(tmp_path / "study")]
    place.mkdir(parents=True)
    (place / "char-100k-2.00e08-seed0").write_text("in the way", encoding="utf-8")
    with pytest.raises(UsageError, match=r"1 of 2 runs failed, the first: char-100k-2.00e08-seed0 ended with 2 \(error: got"):
        main(flags)
    assert "2 of 2  char-100k-4.00e08-seed0  finished" in capsys.readouterr().out
    (place / "char-100k-2.00e08-seed0").unlink()
    assert main(flags) == 0


def test_more_compute_than_text_is_refused(tmp_path, text):
    flags = ["--plan", "1e13:100k", "--kinds", "char", "--source", str(text), *FLAGS[4:]]
    with pytest.raises(UsageError, match=r"times through .*; give more text or less compute"):
        main([*flags, "--out", str(tmp_path / "study")])


def test_its_help_teaches():
    done = subprocess.run([sys.executable, "-m", "experiments.scaling_study", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Budgets in floating-point operations" in done.stdout
