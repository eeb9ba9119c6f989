"""The README's examples are run as they stand."""

import re
from pathlib import Path

import torch

from craft import types
from craft.cli.entry import _dispatch

BLOCKS = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_two_examples():
    assert len(BLOCKS) == 2


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
