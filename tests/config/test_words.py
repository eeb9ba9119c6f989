"""Words of messages: the names that were perhaps meant."""

from __future__ import annotations

from craft import config


def test_nearest_words_come_best_first() -> None:
    assert config.nearest("widht", ["depth", "width", "heads"])[0] == "width"
    assert config.nearest("zzz", ["depth"]) == []
