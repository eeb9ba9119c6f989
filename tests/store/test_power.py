"""Power cuts: every state of the disk that one may legally leave holds the old or the new."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from craft import store
from craft.store import disk


class Disk:
    """A model of a disk that loses what was not synced: contents by file, names by directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[str, Path, Any]] = []

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        self.log.append((name, path, detail))

    def crash(self, length: int, lose: random.Random, target: Path) -> None:
        """Rebuild what a power cut after `length` operations may leave: any unsynced content or rename may be lost or torn."""
        contents: dict[Path, bytes] = {}
        synced: set[Path] = set()
        named: set[Path] = set()
        renames: list[tuple[Path, Path]] = []
        for name, path, detail in self.log[:length]:
            if name == "write":
                contents[path] = detail
            elif name == "fsync":
                synced.add(path)
            elif name == "rename":
                renames.append((path, detail))
            elif name == "fsync_dir" and path != self.root:
                named |= {known for known in contents if known.parent == path}
            elif name == "fsync_dir":
                renames = [
                    (source, place) for source, place in renames if not self.settle(contents, (synced, named), source, place)
                ]
        for source, place in renames[: lose.randint(0, len(renames))]:  # a journal keeps the order of names
            self.settle(contents, (synced, named), source, place)
        for path, data in contents.items():
            if path not in named and lose.random() < 0.5:
                continue
            place = target / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data if path in synced else data[: lose.choice([0, len(data) // 2, len(data)])])

    @staticmethod
    def settle(contents: dict[Path, bytes], marks: tuple[set[Path], ...], source: Path, place: Path) -> bool:
        for path in [path for path in contents if path == source or source in path.parents]:
            moved = place / path.relative_to(source) if path != source else place
            contents[moved] = contents.pop(path)
            for marked in marks:
                if path in marked:
                    marked.add(moved)
        return True


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
