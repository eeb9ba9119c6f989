"""The engine: three modes, one run."""

import warnings

import attrs
import pytest
import torch

from craft import engine, policy, tree
from craft.engine import Engine
from craft.errors import UsageError
from craft.run import Run
from craft.train import train

CPU = torch.device("cpu")
TOLERANCE = 1e-5
"""Relative difference of losses over five updates: sums are taken in another order in each mode."""


def losses(task, mode, number=5):
    machine = Engine(CPU, torch.float32, mode, 1)
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
    eager, plain_state, _ = losses(points, "none")
    assert eager[-1] < eager[0]
    for mode in ("block", "step"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of a first compilation
            found, state, places = losses(points, mode)
        assert found == pytest.approx(eager, rel=TOLERANCE)
        for a, b in zip(tree.leaves(state), tree.leaves(plain_state), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
        assert places[0] == places[-1]  # what is compiled writes into the old tensors


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
        "device": "cpu", "precision": "bf16", "compile": "step", "threads": 3, "torch": "", "machine": ""
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
