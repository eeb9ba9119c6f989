"""Steps of a stored run made again: the same numbers to the bit, and what a change makes of them."""

import attrs
import pytest
import torch

from craft import checkpoint, optim, store
from craft.errors import UsageError
from craft.replay import Replay, first_difference
from craft.run import Checkpoints, Track
from craft.train import train

NAME = "char_1m"


@pytest.fixture
def quiet():
    """Take the lines for people."""
    return [].append


@pytest.fixture
def stored(tiny, quick):
    """Train a run that reports every step and keeps the checkpoints of steps 3, 6 and 8."""

    def make(name="run", **changes):
        run = attrs.evolve(quick(name), checkpoint=Checkpoints(every=3, keep=9), track=Track(wandb="off", every=1))
        return train(tiny(**changes).build(), run, name=NAME, console=False)

    return make


def recorded(directory):
    from craft import track

    rows = track.read(directory / "metrics.jsonl")
    return {row["step"]: {name: row[f"train/{name}"] for name in ("loss", "accuracy", "grad_norm")} for row in rows}


@pytest.mark.parametrize("kept", [(3, 6, 8), (6,), ()])
def test_any_step_is_made_again_to_the_bit(tiny, stored, quiet, kept):
    run = stored()
    for found in checkpoint.find(run.directory / "checkpoints"):
        if found.step not in kept:
            store.remove(found.path)
    expected = recorded(run.directory)
    assert sorted(expected) == list(range(1, 9))
    for step in (1, 3, 4, 7, 8):
        place = Replay(tiny().build(), run.directory, step, quiet)
        assert place.step == max([k for k in kept if k < step], default=0)
        place.to(step - 1)
        made = place.peek()
        assert {name: made.metrics[name] for name in expected[step]} == expected[step]
        assert (made.step, place.step) == (step, step - 1)
        assert made.samples == tiny().build().data.batch(step - 1).sample_B.tolist()
        assert place.next() == made._replace(after=None)


def test_a_damaged_checkpoint_is_passed_over(tiny, stored, quiet):
    run = stored()
    broken = run.directory / "checkpoints" / "step-00000006" / "state.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"?")
    assert Replay(tiny().build(), run.directory, 8, quiet).step == 3


def test_a_change_is_tried_on_one_step(tiny, stored, quiet):
    run = stored()
    place = Replay(tiny().build(), run.directory, 8, quiet)
    place.to(7)
    made = place.peek()
    slower = place.peek(tiny(lr=1e-6).build())
    assert slower.metrics == made.metrics  # a rate moves what comes after
    without = place.peek(attrs.evolve(tiny(), model=attrs.evolve(tiny().model, dropout=0.0)).build())
    assert without.metrics["loss"] != made.metrics["loss"]
    assert place.peek() == made
    with pytest.raises(UsageError, match="gives the state another shape"):
        place.peek(tiny(optimizer=optim.AdamW()).build())


def test_losses_of_the_samples_are_those_of_the_model(tiny, quick, stored, quiet):
    model = attrs.evolve(tiny().model, dropout=0.0)
    run = stored(model=model)
    task = tiny(model=model).build()
    place = Replay(task, run.directory, 4, quiet)
    losses = place.losses()
    assert sum(losses) / len(losses) == pytest.approx(place.peek().metrics["loss"], rel=1e-5)
    batch = task.data.batch(3)
    logits_BTV, _ = task.model.apply(place.state.params, batch.inputs_BT, context())
    expected = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), batch.targets_BT, reduction="none").mean(-1)
    assert losses == pytest.approx(expected.tolist(), rel=1e-5)


def context():
    from craft.types import Context

    return Context()


def differ(tiny, runs, quiet, *changes):
    one, other = (Replay(tiny(**change).build(), run.directory, 1, quiet) for run, change in zip(runs, changes, strict=True))
    return first_difference(one, other, last=8)


def test_the_first_difference_of_two_runs(tiny, stored, quiet):
    one, same, other, shuffled = stored("a"), stored("b"), stored("c", lr=0.01), stored("d", seed=1)
    assert differ(tiny, (one, same), quiet, {}, {}) is None
    here, there, what = differ(tiny, (one, other), quiet, {}, {"lr": 0.01})
    assert (here.step, here.metrics) == (1, there.metrics)
    assert what
    assert all(name.startswith(("params", "opt")) for name in what)
    here, there, what = differ(tiny, (one, shuffled), quiet, {}, {"seed": 1})
    assert what[:2] == ["batch", "metrics"]
    assert here.samples == there.samples  # numbers of the order, which a seed shuffles
    assert here.batch != there.batch


def test_a_run_that_began_with_anothers_state_needs_a_checkpoint(tiny, quick, stored, quiet):
    parent = stored("parent")
    run = attrs.evolve(quick("fork"), fork=parent.directory, checkpoint=Checkpoints(keep=1))
    forked = train(tiny(steps=12).build(), run, name=NAME, console=False)
    with pytest.raises(UsageError, match="began with the state of another run and keeps no checkpoint before step 12"):
        Replay(tiny(steps=12).build(), forked.directory, 12, quiet)


def test_a_step_from_before_an_extension_has_the_schedule_of_its_time(tiny, quick, stored, quiet):
    run = stored()
    before = recorded(run.directory)
    again = attrs.evolve(quick("run"), resume="auto", extend=True, checkpoint=Checkpoints(every=3, keep=9))
    train(tiny(steps=12).build(), again, name=NAME, console=False)
    place = Replay(tiny(steps=12).build(), run.directory, 8, quiet)
    assert place.step == 6
    place.to(7)  # the rate of step 7 shows in the loss of step 8
    made = place.peek()
    assert {name: made.metrics[name] for name in before[8]} == before[8]
