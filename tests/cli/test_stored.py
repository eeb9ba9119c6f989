"""A stored run as a task: found by what its configuration says, never by running what it says."""

import json
import shutil
import sys

import pytest
import torch

from craft import checkpoint, tree
from craft.cli.stored import load
from craft.errors import UsageError


@pytest.fixture
def copy(finished, tmp_path):
    """Copy the finished run, with values of its config.json changed by path."""

    def make(**experiment):
        place = tmp_path / "copied"
        shutil.copytree(finished, place)
        data = json.loads((place / "config.json").read_text(encoding="utf-8"))
        data["experiment"] |= experiment
        (place / "config.json").write_text(json.dumps(data), encoding="utf-8")
        return place

    return make


def test_a_run_is_loaded_as_it_was_saved(finished):
    stored = load(finished, device="cpu", precision="fp32", threads=1)
    assert stored.step == 4
    assert stored.record.experiment["name"] == "char_1m"
    found = checkpoint.find(finished / "checkpoints")[-1]
    again = checkpoint.load(found.path, stored.task.init(0))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(stored.state), tree.leaves(again), strict=True))


def test_a_copied_run_works_and_brings_its_vocabulary(copy):
    place = copy()
    (place / "checkpoints" / "step-00000004").rename(place / "checkpoints" / "step-00000009")  # names are not trusted
    assert load(place, device="cpu").step == 4
    tokenizer = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
    found = load(place, device="cpu").task.tokenizer
    assert found is not None
    assert found.to_json() == tokenizer


TRAP = 'raise SystemExit("this code must not run")\n'


@pytest.mark.parametrize(
    "module", ["trap", "os", "experimentstrap", "experiments.trap.py", "experiments.py", "experiments.a.trap"]
)
def test_no_code_comes_out_of_a_configuration(copy, module, monkeypatch, tmp_path):
    for name in ("trap.py", "experimentstrap.py", "experiments.trap.py", "experiments.py"):
        (tmp_path / name).write_text(TRAP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises(UsageError, match="experiment"):
        load(copy(module=module), device="cpu")
    assert not {name for name in set(sys.modules) - before if "trap" in name}


def test_a_run_without_a_checkpoint(copy):
    place = copy()
    shutil.rmtree(place / "checkpoints")
    with pytest.raises(UsageError, match="has no checkpoint yet; train it first"):
        load(place, device="cpu")
