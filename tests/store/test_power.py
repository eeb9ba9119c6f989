"""Power cuts: every state of the disk that one may legally leave holds the old or the new."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from craft import store
from craft.store import disk
from tools.chaos.power import Disk


def test_every_power_cut_leaves_old_or_new(tmp_path: Path, thing: Any, hook: Any) -> None:
    assert cut_power(thing, tmp_path, hook) == set()


def test_the_power_cut_would_show_a_missing_sync(
    tmp_path: Path, thing: Any, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "fsync", lambda descriptor, path: None)
    assert "corrupt" in cut_power(thing, tmp_path, hook)


def test_the_power_cut_would_show_a_missing_sync_of_a_directory(
    tmp_path: Path, thing: Any, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, parent = disk.fsync_directory, tmp_path / "parent"
    monkeypatch.setattr(disk, "fsync_directory", lambda path: None if path == parent / "real" else sync(path))
    assert "lost after success" in cut_power(thing, parent, hook)
    parent = tmp_path / "inner"
    monkeypatch.setattr(disk, "fsync_directory", lambda path: sync(path) if path == parent / "real" else None)
    assert "corrupt" in cut_power(thing, parent, hook)


def cut_power(thing: Any, tmp_path: Path, hook: Any) -> set[str]:
    model = Disk(tmp_path / "real")
    hook(model)
    store.publish(model.root / "thing", thing.old, {})
    first = len(model.log)
    store.publish(model.root / "thing", thing.new, {})
    hook(None)
    last = next(i for i, (name, path, _) in reversed(list(enumerate(model.log))) if name == "unlink" or i == len(model.log) - 1)
    commit = max(i for i, (name, path, _) in enumerate(model.log[: last + 1]) if name == "rename") + 2
    found = set()
    for length in range(first, len(model.log)):
        for seed in range(8):
            target = tmp_path / f"crash-{length}-{seed}"
            model.crash(length, random.Random(seed), target)
            store.sweep_litter(target)
            try:
                state = thing.content(target / "thing")
            except store.Corrupt:
                found.add("corrupt")
                continue
            assert state in (thing.old, thing.new)
            if length >= commit and state == thing.old:
                found.add("lost after success")
    return found
