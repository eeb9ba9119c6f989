"""Packs: each trial takes the steps of its solo run, alone in its numbers, its samples and its troubles."""

import attrs
import pytest
import torch

from craft import config, data, evaluate, optim, tree
from craft.engine import Engine
from craft.models import Sequence
from craft.sweep import Pack, groups

CPU = torch.device("cpu")


@pytest.fixture(params=["none", "step"])
def machine(request):
    return Engine(CPU, torch.float32, request.param, 1)


@pytest.fixture
def eager():
    return Engine(CPU, torch.float32, "none", 1)


@pytest.fixture
def trials(tiny):
    """Build tasks that differ in tunable numbers."""

    def make(*changes):
        return [tiny(**change).build() for change in changes]

    return make


DIFFERENT = ({"lr": 0.02}, {"lr": 0.005}, {"lr": 0.02, "seed": 1}, {"lr": 0.01, "seed": 1})


def solo(task, machine, number):
    state = machine.place(task.init(task.seed))
    program = machine.step(task, state, task.data.batch(0))
    found = []
    for index in range(number):
        state, metrics = program(state, task.data.batch(index))
        found.append({name: float(value) for name, value in metrics.items()})
    return state, found


def test_a_pack_takes_the_steps_of_its_trials(trials, machine, eager):
    """With dropout, parts of a batch, an average; two of the four have an order of samples of their own."""
    tasks = trials(*DIFFERENT)
    assert groups(tasks) == [[0, 1, 2, 3]]
    pack = Pack(tasks, machine)
    made = [pack.step() for _ in range(5)]
    judged = pack.measure(batches=2)
    for place, (task, state) in enumerate(zip(tasks, pack.states(), strict=True)):
        expected, found = solo(task, eager, 5)
        for metrics, one in zip(made, found, strict=True):
            for name, value in one.items():
                rel, near = (0, 2 / 64) if name == "accuracy" else (1e-4, 0)  # two logits may be equal but for rounding
                assert float(metrics[name][place]) == pytest.approx(value, rel=rel, abs=near), name
        for name, leaf in tree.named(state).items():
            assert torch.allclose(leaf, tree.named(expected)[name], rtol=1e-3, atol=1e-4), name
        there = evaluate.measure(task.evaluation, expected, eager, batches=2)
        assert judged[place]["loss"] == pytest.approx(there["loss"], rel=1e-4)
        assert judged[place].keys() == there.keys()


def test_one_that_diverges_freezes_alone(trials, machine):
    """The bits of the others are those without it."""
    wild = ({"lr": 0.02}, {"lr": 1e30}, {"lr": 0.01})
    tame = ({"lr": 0.02}, {"lr": 0.015}, {"lr": 0.01})
    ended = []
    for changes in (wild, tame):
        pack = Pack(trials(*changes), machine)
        for _ in range(6):
            pack.step()
        ended.append(pack.states())
    assert [bool(state.halted) for state in ended[0]] == [False, True, False]
    assert int(ended[0][1].step) < 6
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(ended[0][1].params))
    for place in (0, 2):
        for one, other in zip(tree.leaves(ended[0][place]), tree.leaves(ended[1][place]), strict=True):
            assert torch.equal(one, other)


def test_a_trial_goes_on_alone(trials, eager):
    tasks = trials(*DIFFERENT)
    pack = Pack(tasks, eager)
    for _ in range(3):
        pack.step()
    state, task = pack.states()[2], tasks[2]
    program = eager.step(task, state, task.data.batch(3))
    for index in range(3, 6):
        state, _ = program(state, task.data.batch(index))
        pack.step()
    for one, other in zip(tree.leaves(state), tree.leaves(pack.states()[2]), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_those_that_are_kept_go_on(trials, eager):
    whole, pack = Pack(trials(*DIFFERENT), eager), Pack(trials(*DIFFERENT), eager)
    for _ in range(3):
        whole.step()
        pack.step()
    some = pack.keep([3, 1])
    assert (some.size, some.done) == (2, 3)
    for _ in range(2):
        metrics, all_metrics = some.step(), whole.step()
    assert metrics["loss"].tolist() == pytest.approx([float(all_metrics["loss"][place]) for place in (3, 1)], rel=1e-5)


def test_a_twin_of_a_trial_is_it(trials, eager):
    pack = Pack(trials(*DIFFERENT), eager)
    pack.step()
    twins = pack.keep([2, 2])
    twins.step()
    one, other = twins.states()
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True))


def test_what_gives_another_program_is_another_group(trials, tiny):
    wide = Sequence(width=32, depth=1, dropout=0.2)
    changes: tuple[dict, ...] = (
        {},
        {"lr": 0.5},
        {"model": wide},
        {"steps": 9},
        {"optimizer": optim.Muon(average=0.9, decay=0.0)},
        {"model": attrs.evolve(tiny().model, dropout=0.0)},
        {"model": attrs.evolve(wide, dropout=0.1)},
        {"seed": 7},
        {"batch": 8},
    )
    assert groups(trials(*changes)) == [[0, 1, 7], [2, 6], [3], [4], [5], [8]]


def test_trials_on_other_data_are_another_group(trials, tmp_path):
    """The program is the same one, but one of them would be judged on the other's text."""
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for place, text in enumerate(texts):
        text.write_text(("abcdefgh ijklm\n" if place else "mlkji hgfedcba\n") * 200, encoding="utf-8")
    sources = [data.Text(source=str(text)) for text in texts]
    assert groups(trials({"data": sources[0]}, {"data": sources[1]}, {"data": sources[0], "lr": 0.5})) == [[0, 2], [1]]


def test_trials_that_are_judged_otherwise_are_another_group(tiny):
    task = tiny().build()

    def measure(state, batch):
        return {"loss": (state.step * 1.0, torch.ones(()))}

    other = attrs.evolve(task, evaluation=task.evaluation._replace(measure=measure))
    assert groups([task, other, task]) == [[0, 2], [1]]


def test_what_cannot_be_told_is_alone(tiny):
    task = tiny().build()
    held = iter(())

    def step(state, batch):
        next(held, None)
        return task.step(state, batch)

    assert groups([attrs.evolve(task, step=step), task, attrs.evolve(task, step=step)]) == [[0], [1], [2]]


def test_batches_are_shared_where_the_order_is(trials, eager):
    alike = Pack(trials({"lr": 0.1}, {"lr": 0.2}), eager)
    assert alike.batch(0).inputs_BT.shape == (4, 16)
    seeds = Pack(trials({"seed": 1}, {"seed": 2}, {"seed": 1}), eager)
    stacked = seeds.batch(0).inputs_BT
    assert stacked.shape == (3, 4, 16)
    assert torch.equal(stacked[0], stacked[2])
    assert not torch.equal(stacked[0], stacked[1])


def test_every_tunable_number_is_a_trials_own(trials, tiny, eager):
    """Changed alone, each changes that trial and no other."""
    base = tiny()
    for path, value in config.tunables(base).items():
        if not value:
            continue
        pack = Pack(trials({}, {}), eager)
        pack.state.hyper[path][1] *= 0.5
        for _ in range(3):
            pack.step()
        reference = Pack(trials({}, {}), eager)
        for _ in range(3):
            reference.step()
        one, same = (tree.leaves(found.states()[0].params) for found in (pack, reference))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True)), path


def test_without_an_evaluation_nothing_is_measured(trials, eager):
    tasks = [attrs.evolve(task, evaluation=None) for task in trials({})]
    with pytest.raises(ValueError, match="got trials without an evaluation"):
        Pack(tasks, eager).measure()
