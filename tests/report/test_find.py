"""The runs that are meant, and what is not a run."""

import json
from pathlib import Path

import pytest

from craft.errors import UsageError
from craft.report import find
from craft.store import MANIFEST


def test_runs_come_in_the_order_given_and_those_of_a_folder_by_path(make, tmp_path):
    b, a, c = make("z/b"), make("z/deeper/a"), make("c")
    assert find([c, tmp_path / "z"]).directories == (c, b, a)


def test_other_config_files_checkpoints_and_hidden_folders_are_no_runs(make, tmp_path):
    run = make("all/run")
    for place in ("all/export", "all/.hidden", "all/run/inside", "all/checkpoint/inside"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_bytes((run / "config.json").read_bytes())
    (tmp_path / "all/export/config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    (tmp_path / "all/checkpoint" / MANIFEST).write_text("{}", encoding="utf-8")
    assert find([tmp_path / "all"]).directories == (run,)


def test_a_silent_run_of_a_folder_is_told_not_compared(make, tmp_path):
    run, silent = make("all/run"), make("all/silent")
    (silent / "metrics.jsonl").write_bytes(b"")
    assert find([tmp_path / "all"]) == ((run,), (silent,))
    (run / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="no run has metrics yet"):
        find([tmp_path / "all"])


def test_what_is_no_run(make, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{", encoding="utf-8")
    for places, words in (
        ([], "got no run; name directories"),
        ([Path(__file__)], "test_find.py, which is a file; give the directory of a run"),
        ([tmp_path / "nowhere"], "nowhere, which does not exist"),
        ([tmp_path / "empty"], "empty, which holds no run"),
        ([tmp_path / "broken"], "broken, which holds no run"),
    ):
        with pytest.raises(UsageError, match=words):
            find(places)


def test_a_run_is_named_once(make, tmp_path):
    run = make("all/run")
    for places in ([run, run], [run, tmp_path / "all"], [run, run / ".." / "run"]):
        with pytest.raises(UsageError, match="twice"):
            find(places)


def test_a_newer_format_is_found_and_refused_where_it_is_read(make, seen):
    run = make("run")
    data = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps(data | {"format": 99}), encoding="utf-8")
    assert find([run]).directories == (run,)
    with pytest.raises(UsageError, match="upgrade Craft"):
        seen(run)
