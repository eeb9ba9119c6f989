"""Every experiment: it says how it is run, and its smoke preset runs."""

import ast
import importlib
import json
from pathlib import Path

import attrs
import pytest

from craft.cli.experiment import execute
from craft.cli.find import experiment_class

FOLDER = Path(__file__).parent.parent.parent / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "cli.main(" in path.read_text(encoding="utf-8"))
FLAGS = "--device cpu --compile none --precision fp32 --threads 1 --track.wandb off --sample.tokens 3"


def test_there_are_experiments():
    assert "char_1m" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_says_how_it_is_run(name):
    doc = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    assert any(line.startswith((f"Run: python -m experiments.{name}", f"Run: craft train {name}")) for line in doc.splitlines())
    assert doc.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("name", NAMES)
def test_its_smoke_preset_runs(name, tmp_path, text, capsys):
    """Only the text is another one: the whole of the held-out standard library would take half a minute."""
    module = importlib.import_module(f"experiments.{name}")
    cls = experiment_class(module)
    source = ["--data.source", str(text), "--context", "32"] if hasattr(cls(), "data") else []
    out = tmp_path / "run"
    assert execute(cls, ["--preset", "smoke", *source, *FLAGS.split(), "--out", str(out)], module.PRESETS, name) == 0
    stored = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert stored["experiment"]["module"] == f"experiments.{name}"
    assert stored["steps"] == module.PRESETS["smoke"].steps
    assert all(isinstance(preset, cls) for preset in module.PRESETS.values())


@pytest.mark.parametrize("name", NAMES)
def test_its_fields_are_described(name):
    from craft.cli.short import documentation

    cls = experiment_class(importlib.import_module(f"experiments.{name}"))
    assert {field.name for field in attrs.fields(cls)} <= set(documentation(cls))
