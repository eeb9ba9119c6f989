"""Predicted memory beside what a process of its own takes, and what is counted exactly."""

import json
import subprocess
import sys
import textwrap

import attrs
import pytest
import torch

from craft import engine, tree
from craft.engine import estimate
from craft.engine.estimate import step_of
from craft.engine.predict import predict
from craft.models import Sequence

RUN = """
import json, sys
from craft import data, engine
from craft.engine.predict import predict
from craft.run import Run
from craft.models import Sequence
from experiments.char_1m import Char1M
import attrs
source, mode, again, batch, width, depth = sys.argv[1:7]
value = Char1M(batch=int(batch), model=Sequence(width=int(width), depth=int(depth)), data=data.Text(source=source))
task = value.build()
machine = engine.start(Run(device="cpu", precision="fp32", compile=mode, threads=1))
machine = attrs.evolve(machine, rematerialise=again == "1")
if len(sys.argv) > 7:
    one = predict(task, machine)
    print(json.dumps({"peak": one.peak / 2**20, "process": one.process / 2**20}))
else:
    state = machine.place(task.init(0), consume=True)
    program = machine.step(task, state, task.data.batch(0))
    for number in range(4):
        state, metrics = program(state, task.data.batch(number))
    print(json.dumps({"peak": engine.peak_megabytes(), "loss": float(metrics["loss"])}))
"""


@pytest.fixture
def process(root, tmp_path):
    """Run or predict in a process of its own; what is compiled comes from the cache where it is there."""
    source = tmp_path / "text.txt"
    source.write_text("".join(f"{n} cats sat on {n * n} mats.\n" for n in range(3000)), encoding="utf-8")

    def start(mode, again, batch, width, depth, *more):
        numbers = [str(number) for number in (again, batch, width, depth)]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(RUN), str(source), mode, *numbers, *more],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    return start


@pytest.mark.parametrize("shape", [("none", 0, 4, 64, 2), ("none", 0, 16, 128, 4), ("none", 1, 16, 128, 4)])
def test_predicted_memory_is_what_a_run_takes(process, shape):
    assert process(*shape, "predict")["peak"] == pytest.approx(process(*shape)["peak"], rel=0.15)


def test_blocks_that_are_rematerialised_take_less(process):
    """Compiles one model in two ways; the runs that are measured find it compiled."""
    found = []
    for again in (0, 1):
        shape = ("block", again, 16, 256, 8)
        process(*shape)
        found.append(process(*shape))
        assert process(*shape, "predict")["peak"] == pytest.approx(found[-1]["peak"], rel=0.15)
    assert found[1]["peak"] < 0.8 * found[0]["peak"]
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-4)


@pytest.mark.parametrize("mode", ["none", "block", "step"])
def test_gradients_are_the_same(tiny, mode):
    """One update of descent in fp32: the weights move as they do when everything is kept."""
    from craft import grad, losses, optim, param, step

    task = tiny().build()
    transform = optim.SGD(momentum=0.0).build(task.model.spec, 1.0)
    plain = attrs.evolve(
        task,
        step=step.build(grad.reverse(losses.next_token(task.model)), transform),
        init=lambda seed: step.start(param.materialise(task.model.spec, 1), transform, steps=8),
    )
    found = []
    for again in (False, True):
        machine = engine.Engine(torch.device("cpu"), torch.float32, mode, 1, rematerialise=again)
        state = machine.place(plain.init(0))
        state = tree.map(lambda x: x.add_(0.05) if x.is_floating_point() and x.ndim else x, state)  # zeros hide mistakes
        state, _ = machine.step(plain, state, plain.data.batch(0))(state, plain.data.batch(0))
        found.append(tree.leaves(state.params))
    for kept, again in zip(*found, strict=True):
        assert torch.allclose(kept, again, rtol=1e-4, atol=1e-6)


def test_states_are_counted_to_the_byte(tiny):
    task = tiny().build()
    state = task.init(0)
    found = step_of(task, mode="none", compute=torch.float32)
    assert found.parameters == sum(leaf.nbytes for leaf in tree.leaves(state.params))
    assert found.parameters + found.optimizer == sum(leaf.nbytes for leaf in tree.leaves(state))
    assert found == step_of(task, state, mode="none", compute=torch.float32)


def test_moments_of_8_bits_and_parts_of_the_batch_take_less(tiny):
    model = Sequence(width=128, depth=2)
    whole = tiny(model=model, accumulate=1, batch=32, context=64)
    found = step_of(whole.build(), mode="none", compute=torch.float32)
    parts = step_of(attrs.evolve(whole, accumulate=4).build(), mode="none", compute=torch.float32)
    assert parts.activations < 0.3 * found.activations
    assert parts.parameters == found.parameters
    narrow = attrs.evolve(whole, optimizer=attrs.evolve(whole.optimizer, bits=8))
    narrow = step_of(narrow.build(), mode="none", compute=torch.float32)
    assert narrow.optimizer < 0.7 * found.optimizer  # the average stays as it is


def test_products_are_counted_as_the_model_counts_them(tiny):
    model = Sequence(width=128, depth=2)
    task = tiny(model=model, accumulate=1, batch=8, context=64).build()
    kept = step_of(task, mode="none", compute=torch.float32).work
    again = step_of(task, mode="none", compute=torch.float32, rematerialise=True).work
    assert kept.wide > 0.9 * task.flops
    assert 1.15 < again.wide / kept.wide < 1.4


def test_an_estimate_is_kept(tiny, monkeypatch):
    task = tiny(lr=0.017).build()
    first = step_of(task, mode="none", compute=torch.float32)

    def fail(*args):
        raise AssertionError("traced again")

    monkeypatch.setattr(estimate, "_traced", fail)
    assert step_of(tiny(lr=0.017).build(), mode="none", compute=torch.float32) == first
    with pytest.raises(AssertionError, match="traced again"):
        step_of(task, mode="none", compute=torch.float32, rematerialise=True)


def test_a_prediction_adds_up(tiny):
    task = tiny().build()
    one = predict(task, engine.Engine(torch.device("cpu"), torch.float32, "none", 1), process=1 << 28)
    assert one.peak == (1 << 28) + one.step.peak + one.slack == one.first
    assert one.seconds > 0
    assert one.first_start == one.start
