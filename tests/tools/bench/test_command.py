import json
from typing import Any

import pytest

from tools.bench import command
from tools.bench.pool import NotRun


def test_all_sections_by_default_and_a_few_when_quick():
    assert command.parse([]).only == list(command.SECTIONS)
    assert set(command.parse(["--quick"]).only) < set(command.SECTIONS)
    assert command.parse(["--only", "help,start"]).only == ["help", "start"]


def test_an_unknown_section_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--only", "speed"])
    assert "got speed; expected some of steady" in capsys.readouterr().err


def test_a_text_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--text", "nowhere.txt"])
    assert "no file" in capsys.readouterr().err


def test_pieces_are_written_as_they_come_and_not_made_again(session, monkeypatch):
    made: list[str] = []

    class Section:
        @staticmethod
        def run(session, done):
            for name in ("a", "b"):
                if name not in done:
                    made.append(name)
                    yield name, {"not_run": "made up"}
            raise NotRun("it broke off")

    monkeypatch.setattr("importlib.import_module", lambda name: Section)
    results: dict[str, Any] = {"gpu": {"a": 1}}
    command.measure(session, "gpu", results)
    stored = json.loads((session.out / "bench.json").read_text())
    assert made == ["b"]
    assert stored["gpu"]["a"] == 1
    assert results["gpu"]["not_run"] == "it broke off"
    assert set(results["made"]["gpu"]) == {"commits", "how", "at"}
