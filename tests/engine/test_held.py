"""A hyperparameter that the state holds is in no program: another value of it takes the program that is there."""

import attrs
import pytest
import torch

from craft import config, grad, losses, optim, tree
from craft.engine import Engine
from craft.engine.fingerprint import fingerprint
from craft.engine.program import trace_step
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.types import Context, hyper
from experiments.char_1m import Char1M

RECIPES = {
    "AdamW": optim.AdamW(average=0.9, clip=1.0),
    "Lion": optim.Lion(average=0.9, clip=1.0, decay=0.1),
    "Muon": optim.Muon(average=0.9, clip=1.0, rest=0.3),
    "SGD": optim.SGD(momentum=0.9, decay=0.1, clip=1.0, average=0.9),
}


@pytest.fixture
def experiment(tiny):
    model = Sequence(width=16, depth=1, dropout=0.2, pattern=(Attention(heads=2), FeedForward(expand=2.0)))
    return lambda recipe: attrs.evolve(tiny(model=model, accumulate=1), optimizer=RECIPES[recipe])


def changed(experiment, path, value):
    first, _, rest = path.partition(".")
    return attrs.evolve(experiment, **{first: changed(getattr(experiment, first), rest, value) if rest else value})


def at(experiment, path):
    for name in path.split("."):
        experiment = getattr(experiment, name)
    return experiment


def key(task):
    return fingerprint(task.step, held=task.init(0).hyper)


def program(task):
    """Return the text of what a step is traced to."""
    machine = Engine(torch.device("cpu"), torch.float32, "step", 1)
    with machine._policy():
        plan, graphs = trace_step(task.step, task.init(0), task.data.batch(0), blocks=False)
    return repr(plan), {name: graph.code for name, graph in graphs.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_another_value_has_the_same_program(experiment, recipe):
    one = experiment(recipe)
    expected = key(one.build()), program(one.build())
    paths = config.tunables(one)
    assert len(paths) >= 4
    for path in paths:
        value = at(one, path)
        assert value != 0, f"{recipe} has no {path} here: give it one"
        other = changed(one, path, 0.7 * value).build()
        assert (key(other), program(other)) == expected, path
        assert fingerprint(other.step) != fingerprint(one.build().step), path  # where the state does not hold it


@pytest.mark.parametrize("recipe", RECIPES)
def test_none_at_all_may_have_another_program(experiment, recipe):
    """What leaves a part out is told by the key: two values of one key have one program."""
    one = experiment(recipe)
    expected = key(one.build()), program(one.build())
    for path in config.tunables(one):
        if path == "lr":
            continue
        other = changed(one, path, 0.0).build()
        assert key(other) != expected[0] or program(other) == expected[1], path


def test_only_what_is_held_is_left_out():
    value = hyper("a", 1.0)

    def function(ctx: Context):
        return value(ctx)

    def other(number, held=()):
        nonlocal value
        value = hyper("a", number)
        return fingerprint(function, held=held)

    assert other(1.0) != other(2.0)
    assert other(1.0, ["b"]) != other(2.0, ["b"])
    assert other(1.0, ["a"]) == other(2.0, ["a"]) != other(0.0, ["a"])


def test_a_number_that_is_read_past_the_state_counts(tiny):
    """Of a user's own class the value counts: it may be a constant of the program."""

    def make(lr):
        one = tiny(lr=lr)
        loss = losses.next_token(one.build().model)

        def scaled(params, batch, ctx):
            value, extras = loss(params, batch, ctx)
            return value * one.lr, extras

        return grad.reverse(scaled)

    held = Char1M().build().init(0).hyper
    assert fingerprint(make(0.1), held=held) != fingerprint(make(0.2), held=held)


def test_a_stored_program_serves_another_rate(tiny, monkeypatch, tmp_path):
    """Compiles one program."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine, found = Engine(torch.device("cpu"), torch.float32, "step", 1), []
    for lr in (0.01, 0.02):
        task = tiny(lr=lr).build()
        state, batch = machine.place(task.init(0)), task.data.batch(0)
        update = machine.step(task, state, batch)
        eager = attrs.evolve(machine, mode="none").step(task, machine.place(state), batch)
        expected, _ = eager(machine.place(state), batch)
        state, _ = update(state, batch)
        for a, b in zip(tree.leaves(state.params), tree.leaves(expected.params), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
        found.append(sorted(path.name for path in (tmp_path / "craft" / "programs").glob("*")))
    assert found[0] == found[1]
