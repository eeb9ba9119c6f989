"""A preparation that is killed, or loses its power, gives the data of the one that nobody broke."""

import os

import pytest

from craft.store import disk
from tools.chaos import kills
from tools.chaos.preparing import PREPARATION, cut_a_preparation

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")


@forks
def test_killed_before_operations_of_the_disk(tmp_path):
    total = kills.operations(tmp_path, PREPARATION)
    points = range(1, total + 1, max(1, total // 9))
    found = kills.at_operations(tmp_path, points, subject=PREPARATION)
    assert (found.points, found.wrong) == (total, [])
    assert found.killed == found.runs == len(points)


@forks
def test_killed_at_random_moments(tmp_path):
    found = kills.at_random(tmp_path, 8, subject=PREPARATION)
    assert found.wrong == []


def test_the_power_is_cut(tmp_path):
    found = cut_a_preparation(tmp_path, each=1)
    assert found.states > 100
    assert found.wrong == []


def test_a_missing_sync_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "fsync", lambda descriptor, path: None)
    assert cut_a_preparation(tmp_path, each=1).wrong
