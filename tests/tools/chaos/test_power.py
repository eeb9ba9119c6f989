"""The power is cut between any two operations of a whole run."""

import pytest

from craft.store import disk
from craft.track import Many
from tools.chaos.power import cut_a_run


def test_what_was_saved_is_never_lost(tmp_path):
    found = cut_a_run(tmp_path, each=2)
    assert found.states > 200
    assert found.wrong == []


@pytest.mark.parametrize(
    ("guard", "without", "problem"),
    [
        ("sync_file", lambda path: None, "skipped|damaged|holds something else|is lost"),
        ("fsync_directory", lambda path: None, "is lost"),
    ],
)
def test_a_missing_sync_would_be_seen(tmp_path, monkeypatch, guard, without, problem):
    import re

    monkeypatch.setattr(disk, guard, without)
    if guard == "fsync_directory":
        with pytest.raises(StopIteration):  # no checkpoint is ever durable
            cut_a_run(tmp_path, each=1)
        return
    found = cut_a_run(tmp_path, each=1)
    assert any(re.search(problem, one) for one in found.wrong)


def test_reports_that_are_not_synced_before_a_checkpoint_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(Many, "sync", lambda self: None)
    found = cut_a_run(tmp_path, each=3)
    assert any("reports up to step" in one for one in found.wrong)
