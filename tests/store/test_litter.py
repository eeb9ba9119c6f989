"""What killed processes leave, and the broom that takes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from craft import store


def test_sweep_takes_its_own_litter_only_and_puts_back_what_was_not_replaced(tmp_path: Path, thing: Any) -> None:
    thing.publish_old(tmp_path)
    os.rename(tmp_path / "thing", tmp_path / ".old-thing-0123456789abcdef")
    (tmp_path / ".tmp-other").mkdir()
    (tmp_path / ".tmp-x-0123456789abcdef").mkdir()
    (tmp_path / ".tmp-x-0123456789abcdef" / "half").touch()
    (tmp_path / ".trash-x-0123456789abcdef").touch()
    assert [path.name for path in store.sweep_litter(tmp_path)] == [".tmp-x-0123456789abcdef", ".trash-x-0123456789abcdef"]
    assert sorted(os.listdir(tmp_path)) == [".tmp-other", "thing"]
    assert thing.content(tmp_path / "thing") == thing.old
    assert store.sweep_litter(tmp_path / "nowhere") == []
