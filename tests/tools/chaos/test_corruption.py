"""Changed bytes are never loaded silently, and the tool would see it if they were."""

import pytest

from craft import checkpoint
from tools.chaos import runs
from tools.chaos.corruption import corrupt


@pytest.fixture
def whole(tmp_path):
    """Train the run whose checkpoints are changed."""
    runs.go(tmp_path, tmp_path / "whole", steps=2)
    return tmp_path / "whole"


def test_every_change_is_refused(tmp_path, whole):
    found = corrupt(tmp_path, whole, 400)
    assert (found.tried, found.refused, found.silent) == (400, 400, [])


def test_a_silent_load_would_be_seen(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", lambda path, like: like)
    found = corrupt(tmp_path, whole, 5)
    assert (found.refused, len(found.silent)) == (0, 5)
