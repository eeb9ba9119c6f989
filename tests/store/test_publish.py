"""Published directories: what they hold, and which names they take."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from craft import store


def test_publish_is_verified_and_says_what_it_holds(tmp_path: Path, thing: Any) -> None:
    path = store.publish(tmp_path / "deep" / "thing", thing.new, {"step": 3})
    manifest = store.verify(path)
    assert manifest["step"] == 3
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {"a.bin": 2100, "c.bin": 256}
    assert thing.content(path) == thing.new


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, thing: Any) -> None:
    one = store.publish(tmp_path / "one", thing.new, {"x": 1, "y": {"b": 1, "a": 2}})
    time.sleep(0.01)
    two = store.publish(tmp_path / "elsewhere" / "two", dict(reversed(thing.new.items())), {"y": {"a": 2, "b": 1}, "x": 1})
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", store.MANIFEST, "..", "a\\b", "C:x"])
def test_publish_takes_plain_names_only(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="file name"):
        store.publish(tmp_path / "thing", {name: b""}, {})
    assert os.listdir(tmp_path) == []


def test_publish_refuses_keys_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'files' or 'seal'"):
        store.publish(tmp_path / "thing", {}, {"seal": 1})


def test_nothing_is_deleted_before_the_new_name_is_durable(tmp_path: Path, thing: Any, count_operations: Any) -> None:
    thing.publish_old(tmp_path)
    replaced = count_operations(lambda: thing.publish_new(tmp_path))
    assert replaced[-6:] == ["rename", "fsync_dir", "unlink", "unlink", "unlink", "rmdir"]
    removed = count_operations(lambda: store.remove(tmp_path / "thing"))
    assert removed == ["rename", "fsync_dir", "unlink", "unlink", "unlink", "rmdir"]
