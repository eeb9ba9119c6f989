"""The README's examples are run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from craft import checkpoint, tree, types
from craft.cli.entry import _dispatch
from tools.chaos import runs

BLOCKS = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_three_examples():
    assert len(BLOCKS) == 3


def test_a_composed_method_trains_three_trials_in_one_program(monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled(f, backend="aot_eager", **options))
    scope: dict = {}
    exec(BLOCKS[0], scope)  # the example is the text itself
    ids = torch.randint(0, 65, (4, 17), generator=torch.Generator().manual_seed(0))
    batch = types.Batch(ids[:, :-1], ids[:, 1:], torch.ones(4, 16), torch.arange(4))
    pack, losses = scope["pack"], []
    for _ in range(12):
        pack, metrics = scope["train"](pack, batch)
        losses.append(metrics["loss"])
    assert losses[0].shape == (3,)
    assert torch.equal(losses[0], losses[0][:1].expand(3))  # one seed, one start
    assert (losses[-1] < losses[0]).all()
    assert losses[-1][2] < losses[-1][0]  # the learning rates are their own


def test_a_new_experiment_trains_resumes_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("sam.py").write_text(BLOCKS[1], encoding="utf-8")
    Path("words.txt").write_text("the cat sat on the mat\n" * 400, encoding="utf-8")
    flags = ["--data.source", "words.txt", "--track.wandb", "off", "--compile", "none", "--sample.tokens", "5"]
    shape = ["--model.width", "16", "--model.depth", "1"]
    assert _dispatch(["train", "sam.py", "--radius", "0.1", "--steps", "6", "--out", "run", *flags, *shape]) == 0
    assert _dispatch(["train", "sam.py", "--resume", "run", *flags[2:]]) == 0
    assert "complete" in capsys.readouterr().out
    assert _dispatch(["generate", "run", "--prompt", "the ", "--tokens", "8", "--experiment", "sam.py"]) == 0
    assert capsys.readouterr().out.startswith("the ")


def test_a_checkpoint_is_read_without_craft_and_without_torch(tmp_path):
    runs.go(tmp_path, tmp_path / "RUN", steps=4)
    (tmp_path / "read.py").write_text(
        f"{BLOCKS[2]}\nimport sys\nassert not {{'torch', 'craft'}} & set(sys.modules)\n"
        "print(json.dumps({name: leaf.astype('float64').sum() for name, leaf in leaves.items()}))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, "read.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    newest = checkpoint.find(tmp_path / "RUN" / "checkpoints")[-1]
    state = checkpoint.load(newest.path, runs.experiment(tmp_path, 4).build().init(0))
    expected = {name: float(leaf.double().sum()) for name, leaf in tree.named(state).items()}
    assert json.loads(done.stdout) == pytest.approx(expected)
