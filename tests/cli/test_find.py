"""Experiments by name or by path."""

import sys

import pytest

from craft.cli.find import experiment_class, find, known, name_of, summary
from craft.errors import UsageError

IDEA = '''"""An idea.

Run: somehow
"""

import attrs


@attrs.frozen
class {name}:
    """One run."""

    def build(self, tokenizer=None):
        raise RuntimeError("built")
'''


@pytest.fixture
def idea(tmp_path, monkeypatch):
    def write(name="idea", classes=("Idea",)):
        path = tmp_path / "my" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n\n".join(IDEA.format(name=each) for each in classes), encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return path

    return write


def test_known_experiments_are_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "experiments.char_1m")
    names = known()
    assert "char_1m" in names
    assert "__init__" not in names
    assert "experiments.char_1m" not in sys.modules
    assert summary(names["char_1m"]).startswith("Character model of about a million parameters")


def test_a_name_and_a_path(idea):
    assert find("char_1m") is find("experiments.char_1m")
    assert name_of(experiment_class(find("char_1m"))) == "char_1m"
    module = find(str(idea()))
    assert experiment_class(module).__name__ == "Idea"
    assert name_of(experiment_class(module)) == "idea"
    with pytest.raises(RuntimeError, match="built"):
        experiment_class(module)().build()


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        find(str(tmp_path / "idea.py"))


@pytest.mark.parametrize("classes", [(), ("One", "Two")])
def test_a_file_has_one_experiment(idea, classes):
    with pytest.raises(UsageError, match=f"classes {', '.join(classes) or 'none'}; expected one attrs class with `build`"):
        experiment_class(find(str(idea(classes=classes))))


def test_an_unknown_name_without_a_near_one():
    with pytest.raises(UsageError, match=r"got 'zzzzzz' as an experiment; there are .*char_1m.*a path ending in \.py"):
        find("zzzzzz")


def test_names_are_not_paths():
    for name in ("../char_1m", "experiments/char_1m", "experiments.cli.char_1m", ""):
        with pytest.raises(UsageError, match="as an experiment"):
            find(name)
