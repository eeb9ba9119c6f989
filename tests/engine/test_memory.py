"""What is kept for the backward pass: by words, by default, by size."""

import attrs
import pytest
import torch

from craft import engine
from craft.checkpoint import latest
from craft.engine import memory
from craft.engine.memory import choose_memory
from craft.engine.predict import predict
from craft.errors import UsageError
from craft.models import Sequence
from craft.run import Run
from craft.train import train

MACHINE = engine.Engine(torch.device("cpu"), torch.float32, "none", 1)


@pytest.fixture
def task(tiny):
    return tiny(model=Sequence(width=128, depth=4), accumulate=1, batch=32, context=64).build()


def test_words_decide_alone(task):
    assert not choose_memory("fast", task, MACHINE, None).rematerialise
    assert choose_memory("small", task, MACHINE, None).rematerialise
    assert engine.start(Run(device="cpu", compile="none", memory="small")).rematerialise
    assert not engine.start(Run(device="cpu", compile="none", memory="auto")).rematerialise


def test_much_is_computed_again_by_default(task, monkeypatch):
    state = task.init(0)
    assert not choose_memory("auto", task, MACHINE, state).rematerialise
    monkeypatch.setattr(memory, "KEPT", 1 << 20)
    assert not choose_memory("auto", task, MACHINE, state).rematerialise
    monkeypatch.setattr(memory, "TOGETHER", 1 << 20)
    chosen = choose_memory("auto", task, MACHINE, state)
    assert chosen.rematerialise
    assert "MB are computed again, more than 1 MB; --memory fast keeps them" in chosen.why


def test_the_bound_is_one(task, tiny):
    for one in (task, tiny().build()):
        kept = predict(one, MACHINE).step.activations
        assert kept <= memory._bound(one, one.init(0)) < 20 * kept


def test_a_size_takes_the_first_that_fits(task):
    state = task.init(0)
    kept, again = (predict(task, attrs.evolve(MACHINE, rematerialise=again)).peak for again in (False, True))
    assert again < kept
    between = f"{(kept + again) / 2 / 2**20:.0f}MB"
    assert not choose_memory("8GB", task, MACHINE, state).rematerialise
    chosen = choose_memory(between, task, MACHINE, state)
    assert chosen.rematerialise
    assert f"of {between} are predicted" in chosen.why
    with pytest.raises(UsageError, match=r"got --memory 20MB, but the smallest setting is predicted to take \d+ MB; allow"):
        choose_memory("20MB", task, MACHINE, state)


def test_a_run_keeps_what_was_chosen(tiny, quick):
    run = quick(memory="small")
    result = train(attrs.evolve(tiny().build(), steps=4), run, console=False)
    assert "memory small: activations are computed again" in (result.directory / "log.txt").read_text(encoding="utf-8")
    found = latest(result.directory / "checkpoints", print)
    assert found is not None
    assert found.manifest["extra"]["rematerialise"] is True
    more = attrs.evolve(run, resume=str(result.directory), extend=True, memory="auto")
    train(tiny().build(), more, console=False)
    log = (result.directory / "log.txt").read_text(encoding="utf-8")
    assert "memory auto: as before: activations are computed again" in log
    assert "perhaps not exact" not in log


def test_what_is_asked_for_outranks_what_was(tiny, quick):
    run = quick(memory="small")
    result = train(attrs.evolve(tiny().build(), steps=4), run, console=False)
    train(tiny().build(), attrs.evolve(run, resume=str(result.directory), extend=True, memory="fast"), console=False)
    log = (result.directory / "log.txt").read_text(encoding="utf-8")
    assert "perhaps not exact from here on: rematerialise was True, is False" in log
