"""A directory to publish in an old and a new content, and a disk whose operations are counted or fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from craft import store
from craft.store import disk


class Thing:
    """A directory `thing` and a file `file`, each old or new."""

    old = {"a.bin": b"old" * 500, "b.bin": b""}
    new = {"a.bin": b"new" * 700, "c.bin": bytes(range(256))}

    def publish_old(self, parent: Path) -> None:
        store.publish(parent / "thing", self.old, {"n": 1})

    def publish_new(self, parent: Path) -> None:
        files: dict[str, Any] = {"a.bin": self.new["a.bin"], "c.bin": lambda path: path.write_bytes(self.new["c.bin"])}
        store.publish(parent / "thing", files, {"n": 2})

    def prepare(self, parent: Path) -> None:
        parent.mkdir()
        store.write(parent / "file", b"old")
        self.publish_old(parent)

    def content(self, directory: Path) -> dict[str, bytes]:
        store.verify(directory)
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != store.MANIFEST}


class Failing:
    """Raises at the n-th operation, and at all later ones if the disk is gone for good."""

    def __init__(self, n: int, code: int, forever: bool) -> None:
        self.left, self.code, self.forever = n, code, forever

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        self.left -= 1
        if self.left == 0 or (self.forever and self.left < 0):
            raise OSError(self.code, os.strerror(self.code), str(path))


@pytest.fixture
def thing() -> Thing:
    """Return what is published in an old and a new content."""
    return Thing()


@pytest.fixture
def failing() -> type[Failing]:
    """Return what makes a hook that fails: (which operation, error number, whether for good)."""
    return Failing


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return what sets the hook of the disk until the test ends."""
    return lambda function: monkeypatch.setattr(disk, "HOOK", function)


@pytest.fixture
def count_operations(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Return what does something and tells the operations that passed the hook."""

    def count(action: Callable[[], object]) -> list[str]:
        seen: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(disk, "HOOK", lambda name, path, detail: seen.append(name))
            action()
        return seen

    return count
