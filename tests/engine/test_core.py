"""The engine: three modes, one run."""

import sys
import warnings
from typing import Any

import attrs
import pytest
import torch

from craft import engine, grad, losses, optim, policy, rng, step, tree
from craft.engine import Engine
from craft.errors import UsageError
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.models.preset import gpt2
from craft.run import Run
from craft.step import Task
from craft.train import train
from craft.types import Batch, hyper

CPU = torch.device("cpu")
TOLERANCE = 1e-5
"""Relative difference of losses over five updates: sums are taken in another order in each mode."""


def follow(task, mode, number=5, dtype=torch.float32):
    """Return the losses of some updates, the state after them, and where its leaves lay."""
    machine = Engine(CPU, dtype, mode, 1)
    state = machine.place(task.init(0))
    program = machine.step(task, state, machine.send(task.data.batch(0)))
    found, places = [], []
    for index in range(number):
        state, metrics = program(state, task.data.batch(index))
        found.append(float(metrics["loss"]))
        places.append([leaf.data_ptr() for leaf in tree.leaves(state)])
    return found, state, places


def test_every_mode_takes_the_same_steps(points):
    """Compiles two programs: by blocks, of which there are none here, and the whole step."""
    eager, plain_state, _ = follow(points, "none")
    assert eager[-1] < eager[0]
    for mode in ("block", "step"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of a first compilation
            found, state, places = follow(points, mode)
        assert found == pytest.approx(eager, rel=TOLERANCE)
        for a, b in zip(tree.leaves(state), tree.leaves(plain_state), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
        assert places[0] == places[-1]  # what is compiled writes into the old tensors


class Tokens:
    """Random ids, and a target that is hidden."""

    fingerprint = "tokens"
    tokens = 128

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def batch(self, step):
        bits = rng.bits(rng.fold_in(rng.key(torch.tensor(3)), torch.tensor(step)), (4, 33))
        ids = bits.to(torch.int64) % self.vocabulary
        weights = torch.ones(4, 32)
        weights[1, 5] = 0
        return Batch(ids[:, :-1], ids[:, 1:], weights, torch.arange(4) + 4 * step)

    def describe(self):
        return {"name": "tokens"}


@attrs.frozen
class Row:
    """A way to train a small model."""

    model: Sequence
    """The model."""
    optimizer: Any = optim.AdamW()
    """What moves it."""
    wrap: Any = None
    """What is put around the gradient."""
    gradient: Any = grad.reverse
    """The gradient of the loss."""
    scaled: bool = False
    """Whether the loss is scaled."""
    dtype: torch.dtype = torch.float32
    """Type of the activations."""
    vocabulary: int = 11
    """Number of tokens."""

    def build(self):
        model = self.model.build(self.vocabulary)
        transform = self.optimizer.build(model.spec, hyper("lr", 0.003))
        grad_fn = self.gradient(losses.next_token(model))
        grad_fn = self.wrap(grad_fn) if self.wrap else grad_fn
        start = step.starter(model.spec, transform, steps=20, hyper={"lr": 0.003, "model.dropout": self.model.dropout})

        def init(seed):
            return step.scaled(start(seed), self.scaled)

        return Task(step=step.build(grad_fn, transform), init=init, data=Tokens(self.vocabulary), steps=20)


SMALL = Sequence(width=16, depth=2, pattern=(Attention(heads=2), FeedForward(expand=2.0)), std=0.3)
"""RMS norm, rotary positions, normalised queries and keys; nothing starts at zero."""
HYBRID = attrs.evolve(SMALL, pattern=(Recurrence(), FeedForward(expand=2.0)))
TIED = attrs.evolve(SMALL, tied=True, pattern=(Attention(heads=2, groups=1, normed=False), FeedForward(2.0, "swiglu")))
GPT = attrs.evolve(gpt2(width=16, depth=3, heads=2, context=32), std=0.3)
DROPPING = attrs.evolve(SMALL, dropout=0.3)

ROWS = {
    "muon, average, accumulated": ("block", Row(SMALL, optim.Muon(average=0.9), lambda f: grad.accumulate(f, 2))),
    "eight bits": ("step", Row(SMALL, optim.AdamW(bits=8))),
    "gpt2, accumulated": ("step", Row(GPT, optim.SGD(), lambda f: grad.accumulate(f, 2), vocabulary=20)),
    "gpt2": ("block", Row(GPT, optim.SGD())),
    "gpt2, bf16": ("step", Row(GPT, optim.SGD(), dtype=torch.bfloat16)),
    "recurrent, bf16": ("block", Row(HYBRID, dtype=torch.bfloat16)),
    "recurrent, muon": ("step", Row(HYBRID, optim.Muon())),
    "tied, swiglu, sharpness": ("block", Row(TIED, wrap=lambda f: grad.sharpness(f, 0.05))),
    "tied, fp16, scaled": ("block", Row(TIED, scaled=True, dtype=torch.float16)),
    "dropout, each sample": ("block", Row(DROPPING, wrap=lambda f: grad.sample(f, 1.0))),
    "dropout": ("block", Row(DROPPING)),
    "dropout, rematerialised": ("block", Row(DROPPING, gradient=lambda loss: grad.reverse(loss, rematerialise=True))),
    "forward": ("block", Row(attrs.evolve(SMALL, depth=1), gradient=grad.forward)),
    "many tokens": ("block", Row(SMALL, vocabulary=1100)),
}
"""Every model, optimiser state and gradient at least once, in the mode that has most to do for it.

A GPT-2's keys have a bias, whose gradient is 0 but for rounding: Adam would make steps of that, so descent does it.
"""


@pytest.mark.parametrize("name", ROWS)
def test_a_compiled_model_takes_the_eager_steps(name, monkeypatch):
    mode, row = ROWS[name]
    if name == "many tokens":  # 128 rows of 1100 logits, in five chunks
        monkeypatch.setattr(sys.modules["craft.losses.linear_cross_entropy"], "CHUNK_BYTES", 2**17)
    task = row.build()
    eager, expected, _ = follow(task, "none", 4, row.dtype)
    found, state, _ = follow(task, mode, 4, row.dtype)
    narrow = row.dtype != torch.float32
    assert eager[0] != eager[-1]
    assert found == pytest.approx(eager, rel=5e-3 if narrow else TOLERANCE)
    assert int(state.step) == 4
    assert not bool(state.halted)
    assert tree.paths(state) == tree.paths(expected)
    tolerance = 2e-2 if narrow else 1e-4  # four updates of 0.003 at most
    for a, b in zip(tree.leaves((state.params, state.hyper)), tree.leaves((expected.params, expected.hyper)), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_a_state_that_is_placed_has_memory_of_its_own(tiny):
    machine = Engine(CPU, torch.float32, "none", 1)
    given = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(2, requires_grad=True)}
    placed = machine.place(given)
    assert placed["a"].is_contiguous()
    assert not placed["b"].requires_grad
    placed["a"].zero_()
    assert given["a"].sum() == 15.0


def test_batches_are_not_copied_on_the_cpu():
    batch = {"x": torch.ones(2)}
    assert Engine(CPU, torch.float32, "none", 1).send(batch) is batch


def test_functions_run_without_a_tape_in_the_engines_type(tiny):
    machine = Engine(CPU, torch.bfloat16, "none", 1)
    weight = torch.ones(2, requires_grad=True)
    assert machine.function(lambda x: (x.sum(), policy.current().compute))(weight) == (torch.tensor(2.0), torch.bfloat16)
    assert not machine.function(torch.sum)(weight).requires_grad
    assert policy.current().compute == torch.float32


def test_what_a_run_depends_on_is_described():
    found = Engine(CPU, torch.bfloat16, "step", 3).describe()
    assert found | {"torch": "", "machine": ""} == {
        "device": "cpu", "precision": "bf16", "compile": "step", "rematerialise": False, "threads": 3, "torch": "",
        "machine": "",
    }  # fmt: skip
    assert found["torch"] == torch.__version__
    assert Engine(CPU, torch.float16, "none", 1).describe()["precision"] == "fp16"


def test_start_decides_what_the_flags_leave_open():
    machine = engine.start(Run(device="cpu", precision="fp32"), steps=1, flops=1.0, threads=2)
    assert (machine.device, machine.compute, machine.mode, machine.threads) == (CPU, torch.float32, "none", 2)
    assert machine.why == "the run is too short to win back the wait for a compiler"
    asked = engine.start(Run(device="cpu", precision="bf16", compile="block", threads=1), threads=2)
    assert (asked.compute, asked.mode, asked.threads, asked.why) == (torch.bfloat16, "block", 1, "as asked")
    with pytest.raises(UsageError, match="got device 'cuda:77'"):
        engine.start(Run(device="cuda:77"))


def test_a_run_without_a_compiler_says_so_once(tiny, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    result = train(tiny().build(), quick(compile="auto"), console=False)
    log = (result.directory / "log.txt").read_text(encoding="utf-8")
    assert log.count("compiler was found") == 1
    assert "compile none: no C++ compiler was found" in log
    with pytest.raises(UsageError, match=r"got --compile step, but no C\+\+ compiler was found"):
        train(tiny().build(), attrs.evolve(quick("other"), compile="step"), console=False)


def test_a_stacked_step_runs_uncompiled(points):
    """The tape does not see through vmap, so the gradient must not take it there."""
    pack = attrs.evolve(points, step=torch.func.vmap(points.step, in_dims=(0, None)))
    machine = Engine(CPU, torch.float32, "none", 1)
    states = machine.place(tree.stack([points.init(0), points.init(1)]))
    batch = points.data.batch(0)
    after, metrics = machine.step(pack, states, batch)(states, batch)
    alone = [points.step(points.init(seed), batch) for seed in (0, 1)]
    assert torch.allclose(metrics["loss"], torch.stack([found["loss"] for _, found in alone]), rtol=1e-5)
    assert torch.allclose(after.params["w"][1], alone[1][0].params["w"], rtol=1e-5)
