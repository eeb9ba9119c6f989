"""The study trains what is missing, once, and says what it found."""

import json
import subprocess
import sys

import pytest

from craft.errors import UsageError
from experiments.scaling_study import Study, main, rows

FLAGS = ["--plan", "2e8:100k 4e8:100k", "--kinds", "char", "--batch", "2", "--context", "16", "--division", "contiguous"]


def test_the_plan_names_every_run_and_holds_out_the_largest_budget():
    planned = list(rows(Study(seeds=2)))
    assert len({row.name for row in planned}) == len(planned) == 2 * (2 * (3 + 4 + 3) + 1)
    assert {row.budget for row in planned if row.held_out} == {1.3e14}
    for plan, problem in (("4e12", "got the plan"), ("4e12:1b", "got the sizes 1b; expected some of 100k")):
        with pytest.raises(UsageError, match=problem):
            Study(plan=plan)


def test_what_is_there_is_not_trained_again(tmp_path, text, monkeypatch, capsys):
    flags = [*FLAGS, "--source", str(text), "--out", str(tmp_path / "study")]
    run = subprocess.run

    def small(command, **more):
        return run([*command, "--device", "cpu", "--compile", "none", "--track.wandb", "off", "--sample.tokens", "2"], **more)

    monkeypatch.setattr(subprocess, "run", small)
    assert main(flags) == 0
    told = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert [one["budget"] for one in told["runs"]] == [2e8, 4e8]
    assert all(one["flops"] == pytest.approx(one["budget"], rel=0.2) for one in told["runs"])
    assert "train at least 5" in told["laws"]["char"]["not_fitted"]
    assert (tmp_path / "study" / "compare.html").stat().st_size > 10_000
    monkeypatch.setattr(subprocess, "run", lambda *a, **more: pytest.fail("trained again"))
    assert main(flags) == 0
    assert "| char | 100k |" in capsys.readouterr().out


def test_more_compute_than_text_is_refused(tmp_path, text):
    flags = ["--plan", "1e13:100k", "--kinds", "char", "--source", str(text), "--division", "contiguous", *FLAGS[4:8]]
    with pytest.raises(UsageError, match=r"times through .*; give more text or less compute"):
        main([*flags, "--out", str(tmp_path / "study")])


def test_its_help_teaches():
    done = subprocess.run([sys.executable, "-m", "experiments.scaling_study", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Budgets in floating-point operations" in done.stdout
