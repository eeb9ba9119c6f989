"""A run's directory: what it says, and that nothing in it is written over."""

import json
import sys
import types

import attrs
import pytest

from craft import record, store
from craft.errors import UsageError
from experiments.char_1m import Char1M

FACTS = {"experiment": {"module": "experiments.char_1m", "name": "char_1m", "values": {}}, "steps": 3}


def test_what_is_written_is_read(tmp_path):
    record.write(tmp_path, FACTS, {"kind": "bytes"})
    found = record.read(tmp_path)
    assert found.experiment == FACTS["experiment"]
    assert found.tokenizer == {"kind": "bytes"}
    assert found.data["format"] == record.FORMAT
    (tmp_path / "other").mkdir()
    record.write(tmp_path / "other", FACTS, None)
    assert record.read(tmp_path / "other").tokenizer is None


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere as a run, but it does not exist"):
        record.read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        record.read(tmp_path)


@pytest.mark.parametrize("changed", [{"format": record.FORMAT + 1}, {"format": "one"}, {"format": None}])
def test_another_format_is_refused(tmp_path, changed):
    (tmp_path / "config.json").write_text(json.dumps({**FACTS, **changed}), encoding="utf-8")
    with pytest.raises(UsageError, match="this Craft reads format 1: upgrade Craft"):
        record.read(tmp_path)


def test_broken_json_is_named_by_line(tmp_path):
    (tmp_path / "config.json").write_text('{"format": 1,\n "experiment": }', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: .*line 2 column 16"):
        record.read(tmp_path)


def test_a_new_directory_is_free_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert record.open_new(tmp_path / "fresh", "x") == tmp_path / "fresh"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    assert record.open_new(tmp_path / "empty", "x") == tmp_path / "empty"
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "notes.txt").touch()
    for taken in ("file", "empty"):
        with pytest.raises(UsageError, match=f"got --out .*{taken}, which is taken"):
            record.open_new(tmp_path / taken, "x")


def test_directories_without_a_name_never_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *args: "20260101-120000")
    made = []
    for _ in range(3):
        path = record.open_new(None, "idea")
        path.mkdir(parents=True)
        record.write(path, FACTS, None)
        made.append(path.as_posix())
    assert made == [f"outputs/idea/20260101-120000{end}" for end in ("", "-2", "-3")]
    found = record.newest("idea")
    assert found is not None
    assert found.as_posix() == made[-1]


def test_the_newest_is_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert record.newest("idea") is None
    for name in ("20260101-120000", "20260102-120000"):
        path = tmp_path / "outputs" / "idea" / name
        path.mkdir(parents=True)
        record.write(path, FACTS, None)
    (tmp_path / "outputs" / "idea" / "20260103-120000").mkdir()  # a start that failed
    found = record.newest("idea")
    assert found is not None
    assert found.name == "20260102-120000"


def test_versions_name_what_computes():
    found = record.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"craft", "torch", "optree", "safetensors"} <= set(found)
    assert all(isinstance(version, str) and version for version in found.values())


def test_a_class_is_named_by_a_module_that_can_be_imported(monkeypatch):
    assert record.origin(Char1M) == "experiments.char_1m"
    program = types.ModuleType("__main__")
    program.__spec__ = types.SimpleNamespace(name="experiments.char_1m")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", program)

    @attrs.frozen
    class Started:
        """An experiment that was started as a program."""

    Started.__module__ = "__main__"
    assert record.origin(Started) == "experiments.char_1m"


def test_the_code_of_an_experiment_counts(tmp_path, monkeypatch):
    module = types.ModuleType("idea")
    module.__file__ = str(tmp_path / "idea.py")
    monkeypatch.setitem(sys.modules, "idea", module)
    (tmp_path / "idea.py").write_text("x = 1\n", encoding="utf-8")
    idea = type("Idea", (), {"__module__": "idea"})
    child = type("Child", (idea,), {"__module__": "builtins"})
    first, inherited = record.code_fingerprint(idea), record.code_fingerprint(child)
    assert first == record.code_fingerprint(idea)
    assert first != record.code_fingerprint()
    (tmp_path / "idea.py").write_text("x = 2\n", encoding="utf-8")
    assert record.code_fingerprint(idea) != first
    assert record.code_fingerprint(child) != inherited


def test_what_a_killed_start_leaves_is_not_taken(tmp_path):
    """Killed between its tokenizer and its configuration, a run is none yet; someone else's tokenizer is not touched."""
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="which is taken"):
        record.open_new(tmp_path, "x")
    with store.lock(tmp_path):
        pass
    assert record.open_new(tmp_path, "x") == tmp_path
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError, match="which is taken"):
        record.open_new(tmp_path, "x")


def test_a_tokenizer_of_many_subwords_is_read(tmp_path):
    """That of 16,384 subwords has more than a configuration may have."""
    large = {"kind": "bpe", "merges": ["a b"] * 200_000}
    record.write(tmp_path, {"experiment": {}}, large)
    assert (tmp_path / "tokenizer.json").stat().st_size > 1 << 20
    assert record.read(tmp_path).tokenizer == large


def test_a_folder_of_runs_names_one_of_them(tmp_path):
    (tmp_path / "a").mkdir()
    record.write(tmp_path / "a", {"experiment": {}}, None)
    with pytest.raises(UsageError, match=r"has no config.json; give one of the runs in it, such as .*a"):
        record.read(tmp_path)
