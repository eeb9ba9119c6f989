"""Journals: appended lines survive, torn last ones go, and broken ones in the middle are named."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import store


def test_a_journal_keeps_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with store.Journal(path) as journal:
        journal.append({"step": 1, "loss": 0.5, "text": "é\n\ud800"})
        assert store.read_journal(path) == [{"step": 1, "loss": 0.5, "text": "é\n\ud800"}]
        journal.sync()
    with store.Journal(path) as journal:
        journal.append({"step": 2})
        journal.close()
    assert [row["step"] for row in store.read_journal(path)] == [1, 2]


def test_numbers_that_are_not_finite_become_null_and_are_listed(tmp_path: Path) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"loss": float("nan"), "deep": {"x": [1.0, float("inf")]}, "ok": 1.0})
    line = (tmp_path / "j").read_text()
    row = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert row == {"loss": None, "deep": {"x": [1.0, None]}, "ok": 1.0, "nonfinite": ["deep.x.1", "loss"]}


@pytest.mark.parametrize("bad", [[1], "x", {"a": object()}, {1: 1}])
def test_a_journal_takes_objects_of_json_only(tmp_path: Path, bad: Any) -> None:
    with store.Journal(tmp_path / "j") as journal, pytest.raises(ValueError, match="expected"):
        journal.append(bad)
    assert (tmp_path / "j").read_bytes() == b""


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3), max_size=5),
    data=st.data(),
)
def test_a_torn_journal_loses_its_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, data: st.DataObject
) -> None:
    rows = [{key: value for key, value in row.items() if key != "nonfinite"} for row in rows]
    path = tmp_path_factory.mktemp("journal") / "j"
    with store.Journal(path) as journal:
        for row in rows:
            journal.append(row)
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size] + data.draw(st.sampled_from([b"", b"\0\0\0", b"\0\n", b"\xff"])) * (size == len(whole)))
    kept = whole[:size].count(b"\n")
    assert store.read_journal(path) == rows[:kept]
    store.Journal(path).close()
    assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, size) + 1]
    with store.Journal(path) as journal:
        journal.append({"last": 1})
    assert store.read_journal(path) == [*rows[:kept], {"last": 1}]


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(store.Corrupt, match="line 2"):
        store.read_journal(path)
    with pytest.raises(store.Corrupt, match="line 2"):
        store.Journal(path)
    assert path.read_bytes().count(b"\n") == 3


def test_cut_keeps_what_is_wanted_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"step":1}\n{"step": 2 }\n{"step":3}\n{"st')
    with store.Journal(path) as journal:
        journal.cut(lambda row: row["step"] <= 2)
        journal.append({"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"step": 2 }\n{"step": 3}\n'


def test_a_cut_that_fails_leaves_the_journal_whole_and_usable(tmp_path: Path, failing: Any, hook: Any) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"step": 1})
        hook(failing(3, errno.ENOSPC, False))
        with pytest.raises(OSError, match="No space"):
            journal.cut(lambda row: False)
        hook(None)
        journal.append({"step": 2})
    assert [row["step"] for row in store.read_journal(tmp_path / "j")] == [1, 2]


def test_a_half_written_line_does_not_join_the_next(tmp_path: Path, hook: Any) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"step": 1})

        def tear(name: str, path: Path, detail: Any) -> None:
            if name == "write":
                with path.open("ab") as file:
                    file.write(detail[:4])
                raise OSError(errno.ENOSPC, "No space left on device")

        hook(tear)
        with pytest.raises(OSError, match="No space"):
            journal.append({"step": 2})
        hook(None)
        journal.append({"step": 3})
    assert [row["step"] for row in store.read_journal(tmp_path / "j")] == [1, 3]
