"""A pack's trials are runs as any other: reported, saved, interrupted and gone on with, together or alone."""

import json
import shutil

import attrs
import pytest

from craft import checkpoint, hooks
from craft.interrupt import Interrupt
from craft.run import Stop
from craft.sweep.drive import Trial, drive
from craft.train import train

NAME = "char_1m"
CHANGES = ({"lr": 0.02}, {"lr": 0.005}, {"lr": 0.01, "seed": 1})


@pytest.fixture
def trials(tiny, quick, tmp_path):
    """Describe the trials of a pack below a folder."""

    def make(folder, *changes, hook=None, **run):
        made = []
        for number, change in enumerate(changes or CHANGES):
            task = tiny(**change).build()
            if hook is not None and number == 1:
                task = attrs.evolve(task, hooks=(hooks.every(1, hook, name="mine"),))
            how = quick("x", **run)
            made.append(Trial(number, task, attrs.evolve(how, out=tmp_path / folder / str(number)), NAME))
        return made

    return make


def go(trials, stop_at=0, **more):
    interrupt = Interrupt()

    def watch(step, numbers):
        if step == stop_at:
            interrupt.signal = 15

    return drive(trials, interrupt, watch=watch, **more)


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def last(directory, bytes_of):
    return {name: found for name, found in bytes_of(directory).items() if "step-" not in name or "step-00000008" in name}


def test_each_is_the_run_that_it_would_be_alone(trials, quick):
    made = trials("pack")
    found = go(made)
    assert [(one.number, one.status, one.step) for one in found] == [(0, "finished", 8), (1, "finished", 8), (2, "finished", 8)]
    for trial, outcome in zip(made, found, strict=True):
        alone = train(trial.task, quick(f"alone{trial.number}"), name=NAME, console=False)
        there, here = rows(alone.directory), rows(trial.directory)
        assert [row["step"] for row in there] == [row["step"] for row in here]
        for one, other in zip(there, here, strict=True):
            assert one.keys() == other.keys()
            for name in {"train/loss", "eval/loss", "train/lr", "eval/best"} & one.keys():
                assert other[name] == pytest.approx(one[name], rel=1e-4), name
        assert outcome.summary["eval/loss"] == rows(trial.directory)[-1]["eval/loss"]
        one, other = (json.loads((place / "config.json").read_text()) for place in (alone.directory, trial.directory))
        assert (one["experiment"], one["data"], one["code"]) == (other["experiment"], other["data"], other["code"])
        assert (alone.directory / "samples.txt").is_file() == (trial.directory / "samples.txt").is_file()
        assert [found.step for found in checkpoint.find(trial.directory / "checkpoints")] == [6, 8]


def test_interrupted_and_gone_on_with_it_has_the_same_bits(trials, bytes_of):
    whole = trials("whole")
    go(whole)
    for stop in (1, 4, 7):
        made = trials(f"stopped{stop}")
        assert [(one.status, one.step) for one in go(made, stop)] == [("waiting", stop)] * 3
        assert [one.status for one in go(trials(f"stopped{stop}"))] == ["finished"] * 3
        for one, other in zip(whole, made, strict=True):
            assert last(one.directory, bytes_of) == last(other.directory, bytes_of)


def test_what_only_some_have_saved_is_made_again(trials, bytes_of):
    """As a crash leaves it between the saves of two trials."""
    whole, made = trials("whole"), trials("torn")
    go(whole)
    go(made, 6)
    shutil.rmtree(made[2].directory / "checkpoints" / "step-00000006")
    go(trials("torn"))
    for one, other in zip(whole, made, strict=True):
        assert last(one.directory, bytes_of) == last(other.directory, bytes_of)


def test_one_that_diverges_is_told_and_the_others_have_their_bits(trials, bytes_of):
    tame, wild = trials("tame"), trials("wild", {"lr": 0.02}, {"lr": 1e30}, {"lr": 0.01, "seed": 1})
    go(tame)
    found = go(wild)
    assert [one.status for one in found] == ["finished", "diverged", "finished"]
    assert "is not finite" in found[1].error
    assert json.loads((wild[1].directory / "halted.json").read_text())["step"] == found[1].step + 1
    for place in (0, 2):
        assert last(tame[place].directory, bytes_of) == last(wild[place].directory, bytes_of)


def test_what_has_ended_is_told_at_once(trials):
    """A pack that is killed hours later must not make a trial again that diverged at its start."""
    told: list[tuple[int, str]] = []
    seen: list[tuple[int, list]] = []
    drive(
        trials("wild", {"lr": 0.02}, {"lr": 1e30}),
        Interrupt(),
        watch=lambda step, numbers: seen.append((step, list(told))),
        ended=lambda outcome: told.append((outcome.number, outcome.status)),
    )
    assert seen[3][1] == [(1, "diverged")]
    assert told == [(1, "diverged"), (0, "finished")]


def test_a_damaged_checkpoint_does_not_count(trials, bytes_of):
    """The pack goes on from the step before, which all have whole."""
    whole, made = trials("whole"), trials("damaged")
    go(whole)
    go(made, 6)
    place = made[1].directory / "checkpoints" / "step-00000006" / "params.safetensors"
    place.write_bytes(bytes(reversed(place.read_bytes())))
    go(trials("damaged"))
    for one, other in zip(whole, made, strict=True):
        assert last(one.directory, bytes_of) == last(other.directory, bytes_of)


def test_one_whose_hook_fails_is_told_and_the_others_go_on(trials):
    def broken(task, state, report):
        if report.step == 3:
            raise KeyError("of the user's own")

    found = go(trials("hook", hook=broken))
    assert [one.status for one in found] == ["finished", "failed", "finished"]
    assert 'KeyError: "of the user\'s own"' in found[1].error
    assert "Traceback" in found[1].error


def test_a_trial_leaves_the_pack_and_goes_on_alone(trials, tiny, quick):
    made = trials("left")
    go(made, 4)
    alone = train(made[1].task, attrs.evolve(made[1].run, out=None, resume=str(made[1].directory)), name=NAME, console=False)
    together = go(trials("other"))[1]
    assert alone.status == "finished"
    assert alone.summary["train/loss"] == pytest.approx(together.summary["train/loss"], rel=1e-3)


def test_those_that_lose_patience_end_and_the_pack_shrinks(trials):
    """Rates of nearly nothing never get better; two of three end, and the third goes on in a smaller pack."""
    changes = ({"lr": 0.02}, {"lr": 1e-30}, {"lr": 1e-30, "seed": 1})
    sizes = []
    found = drive(
        trials("patience", *changes, stop=Stop(patience=1)), Interrupt(), watch=lambda step, numbers: sizes.append(len(numbers))
    )
    assert [one.status for one in found] == ["finished", "stopped", "stopped"]
    assert "held-out loss not below" in found[1].error
    assert sizes[0] == 3
    assert sizes[-1] == 1


def test_a_finished_pack_is_left_as_it_is(trials, bytes_of):
    made = trials("done")
    go(made)
    before = [bytes_of(trial.directory) for trial in made]
    assert [one.status for one in go(trials("done"))] == ["finished"] * 3
    assert [bytes_of(trial.directory) for trial in made] == before
