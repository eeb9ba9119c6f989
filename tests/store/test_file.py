"""Files that are replaced whole: bytes, rights and strict JSON."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from craft import store


def test_write_replaces_and_honours_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    former = os.umask(0o027)
    try:
        store.write(path, "old\r\n")
        store.write(path, "é\n")
        store.publish(tmp_path / "d", {"x": private}, {})
    finally:
        os.umask(former)
    assert path.read_bytes() == "é\n".encode()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "d" / "x").stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["config.json", "d"]


def private(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def test_write_leaves_an_open_mapping_of_the_former_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    store.write(path, b"old")
    with path.open("rb") as file:
        store.write(path, b"new!")
        assert file.read() == b"old"


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    store.write_json(path, {"b": (1, 2.5, None, True), "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  "a": "é"\n}\n'
    store.write_json(path, {"b": 1, "a": "\ud800"}, sort=True)
    assert json.loads(path.read_bytes().decode("utf-8")) == {"a": "\ud800", "b": 1}
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index('"b"')


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), {1}, {1: 2}, object(), b"x"])
def test_json_refuses_what_it_cannot_say_and_names_the_place(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"at deep\.1"):
        store.write_json(tmp_path / "x.json", {"deep": [0, bad]})
    assert os.listdir(tmp_path) == []
