"""Manifests: no change of a published directory goes unseen, and none points elsewhere."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from craft import store
from craft.store.manifest import sealed


def damage(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        bit = chance.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        return f"bit {bit} of {path.name}"
    size = chance.randrange(len(data))
    path.write_bytes(data[:size])
    return f"{path.name} cut to {size}"


def test_two_hundred_random_flips_and_cuts_are_detected(tmp_path: Path, thing: Any) -> None:
    chance = random.Random(0)
    manifest = {"step": 12, "memory": {"best": 1.5e-05, "text": "é"}}
    store.publish(tmp_path / "whole", thing.new, manifest)
    for case in range(200):
        copy = tmp_path / str(case)
        shutil.copytree(tmp_path / "whole", copy)
        what = damage(copy / chance.choice(sorted(os.listdir(copy))), chance)
        with pytest.raises(store.Corrupt, match=str(copy)):
            pytest.fail(f"{what} was not seen: {store.verify(copy)}")


@pytest.mark.parametrize("name", ["a.bin", "c.bin", store.MANIFEST])
@pytest.mark.parametrize("fault", ["missing", "empty"])
def test_a_missing_or_empty_file_is_named(tmp_path: Path, thing: Any, name: Any, fault: Any) -> None:
    path = store.publish(tmp_path / "thing", thing.new, {})
    (path / name).unlink()
    if fault == "empty":
        (path / name).touch()
    with pytest.raises(store.Corrupt, match=name):
        store.verify(path, hashes=False)


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"files": []}', '{"files": {"../x": {"size": 0, "sha256": ""}}}', "[" * 10**5]
)
def test_a_hostile_manifest_is_corrupt(tmp_path: Path, text: Any) -> None:
    (tmp_path / store.MANIFEST).write_text(text)
    with pytest.raises(store.Corrupt, match=store.MANIFEST):
        store.verify(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", store.MANIFEST])
def test_a_sealed_manifest_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"")
    path = store.publish(tmp_path / "thing", {}, {})
    entry = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (path / store.MANIFEST).write_bytes(sealed({"files": {name: entry}}))
    with pytest.raises(store.Corrupt, match="never writes"):
        store.verify(path)


def test_a_copy_elsewhere_verifies(tmp_path: Path, thing: Any) -> None:
    path = store.publish(tmp_path / "thing", thing.new, {"n": 1})
    shutil.copytree(path, tmp_path / "elsewhere" / "copy")
    assert thing.content(tmp_path / "elsewhere" / "copy") == thing.new
