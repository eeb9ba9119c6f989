"""A run that is killed and gone on with ends like the one that nobody broke."""

import os

import pytest

from tools.chaos import kills
from tools.chaos.runs import CRASHED, LONG, Subject, child, ended, go

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")


def test_killed_before_operations_of_the_disk(tmp_path):
    total = kills.operations(tmp_path)
    assert total > 150
    points = range(1, total + 1, max(1, total // 9))
    found = kills.at_operations(tmp_path, points)
    assert (found.points, found.wrong) == (total, [])
    assert found.killed == found.runs == len(points)


def test_killed_at_random_moments(tmp_path):
    found = kills.at_random(tmp_path, 8, subject=LONG)
    assert found.wrong == []
    assert found.killed >= 8


def test_a_run_that_ends_otherwise_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "reference", lambda folder, subject: {"metrics.jsonl": "0" * 64})
    found = kills.at_operations(tmp_path, [5])
    assert "metrics.jsonl" in found.wrong[0]


def fails(folder, out):
    raise OSError


def test_a_run_that_cannot_be_gone_on_with_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "operations", lambda folder, subject: 5)
    monkeypatch.setattr(kills, "reference", lambda folder, subject: {})
    found = kills.at_operations(tmp_path, [5], subject=Subject(fails, ended, 0.9))
    assert found.wrong == ["operation 5: ended with 70", "operation 5: going on ended with 70"]


def test_a_child_tells_how_it_ended():
    codes = [os.waitstatus_to_exitcode(os.waitpid(child(act), 0)[1]) for act in (lambda: None, lambda: 1 / 0)]
    assert codes == [0, CRASHED]


def test_what_must_be_the_same_is_read(tmp_path):
    go(tmp_path, tmp_path / "run", steps=2)
    assert set(ended(tmp_path / "run")) == {
        "checkpoints/step-00000002/MANIFEST.json", "checkpoints/step-00000002/params.safetensors",
        "checkpoints/step-00000002/state.safetensors", "metrics.jsonl", "samples.txt", "tokenizer.json",
    }  # fmt: skip
