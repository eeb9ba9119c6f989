"""Interrupted anywhere, a run ends with the bits of the run that was never stopped: at every step, crossing three epochs."""

import json
import os
import signal
import subprocess
import sys

import attrs
import pytest

from craft import checkpoint, hooks, schedule
from craft.run import Checkpoints, Evaluations, Samples, Stop, Track
from craft.train import train

STEPS = 15
NAME = "char_1m"


class Logged:
    """A source of batches that notes which samples each step was given."""

    def __init__(self, data, seen):
        self._data, self._seen = data, seen

    def batch(self, step):
        found = self._data.batch(step)
        self._seen[step] = found.sample_B.tolist()
        return found

    def __getattr__(self, name):
        return getattr(self._data, name)


class Broken(Exception):
    """What stands for a crash."""


def broken():
    raise Broken


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def experiment(tiny):
    """Make an experiment with all that a next step can depend on: dropout, parts, warm-up, an average, three epochs."""
    made = tiny(steps=STEPS, batch=16, context=32, accumulate=2, schedule=schedule.Schedule(warmup=0.3))
    return attrs.evolve(made, data=attrs.evolve(made.data, split="0.6,0.35,0.05"))


@pytest.fixture
def run(quick):
    """Make a run with hooks that remember: the best measure, patience, samples and evaluations."""
    places = Checkpoints(every=4, keep=2, best="eval/loss")
    made = quick(checkpoint=places, evaluate=Evaluations(every=3, batches=2), sample=Samples(every=6, tokens=4))
    return lambda name, **changes: attrs.evolve(made, out=made.out.with_name(name), stop=Stop(patience=9), **changes)


@pytest.fixture
def task(experiment):
    """Build the task, with an action after a step and a log of the samples."""

    def make(at=0, action=ask, seen=None):
        built = experiment.build()
        hook = hooks.every(1, lambda task, state, report: action() if report.step == at else None, name="breaker")
        return attrs.evolve(built, hooks=(hook,), data=Logged(built.data, {} if seen is None else seen))

    return make


@pytest.fixture
def ended(bytes_of):
    """Return what must be the same at the end: the last state, every report and every sample."""
    last = f"step-{STEPS:08d}"
    return lambda out: {name: found for name, found in bytes_of(out).items() if "step-" not in name or last in name}


def finish(run, task, name, **changes):
    return train(task, run(name, resume="auto", **changes), name=NAME, console=False)


def test_stopped_after_any_step_it_ends_with_the_same_bits(run, task, ended):
    seen: dict = {}
    whole = train(task(seen=seen), run("whole"), name=NAME, console=False)
    assert task().data.epochs(STEPS) > 3
    expected = ended(whole.directory)
    assert len(expected) == 6
    for k in range(1, STEPS):
        again: dict = {}
        stopped = train(task(at=k, seen=again), run(f"at{k}"), name=NAME, console=False)
        assert int(stopped.state.step) == k
        resumed = finish(run, task(seen=again), f"at{k}")
        assert ended(resumed.directory) == expected, f"stopped after step {k}"
        assert again == seen


def test_stopped_twice_it_ends_with_the_same_bits(run, task, ended):
    expected = ended(train(task(), run("whole"), name=NAME, console=False).directory)
    for first, second in [(1, 2), (3, 4), (4, 9), (6, 12), (13, 14)]:
        name = f"at{first}and{second}"
        train(task(at=first), run(name), name=NAME, console=False)
        finish(run, task(at=second), name)
        assert ended(finish(run, task(), name).directory) == expected, name


def test_crashed_in_any_batch_of_any_evaluation_it_ends_with_the_same_bits(run, task, ended):
    """A crash in the evaluation at the end costs no step: the last state is saved first."""
    calls = []

    def crashing(built, at):
        def measure(state, batch):
            calls.append(1)
            if len(calls) == at:
                raise Broken
            return built.evaluation.measure(state, batch)

        return attrs.evolve(built, evaluation=built.evaluation._replace(measure=measure))

    expected = ended(train(crashing(task(), 0), run("whole"), name=NAME, console=False).directory)
    total = len(calls)
    assert total > 10
    for at in range(2, total + 1):  # the first call finds out what is measured
        calls.clear()
        with pytest.raises(Broken):
            train(crashing(task(), at), run(f"at{at}"), name=NAME, console=False)
        assert ended(finish(run, task(), f"at{at}").directory) == expected, f"in batch {at}"


def test_broken_off_in_its_last_evaluation_it_may_be_extended(run, task):
    """The hooks of that step are made up for, and the run goes on."""

    def crashing(state, batch):
        if int(state.step) == STEPS:
            raise Broken
        return built.evaluation.measure(state, batch)

    built = task()
    broken_off = attrs.evolve(built, evaluation=built.evaluation._replace(measure=crashing))
    with pytest.raises(Broken):
        train(broken_off, run("a"), name=NAME, console=False)
    longer = attrs.evolve(built, steps=STEPS + 3)
    extended = train(longer, run("a", resume="auto", extend=True), name=NAME, console=False)
    assert (extended.status, int(extended.state.step)) == ("finished", STEPS + 3)
    text = (extended.directory / "metrics.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps[-2:] == [STEPS, STEPS + 3]


def test_a_crash_costs_the_steps_since_the_last_checkpoint_and_no_more(run, task, ended):
    expected = ended(train(task(), run("whole"), name=NAME, console=False).directory)
    for k in (1, 4, 5, 11):
        with pytest.raises(Broken):
            train(task(at=k, action=broken), run(f"at{k}"), name=NAME, console=False)
        assert ended(finish(run, task(), f"at{k}").directory) == expected, f"crashed after step {k}"


def test_each_step_is_reported_once(run, task):
    often = Track(wandb="off", every=1)
    train(task(at=7), run("a", track=often), name=NAME, console=False)
    with pytest.raises(Broken):  # after the save of step 9 come two reports that are made again
        train(task(at=11, action=broken), run("a", resume="auto", track=often), name=NAME, console=False)
    out = finish(run, task(), "a", track=often).directory
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("mode", ["block", "step"])
def test_compiled_in_another_process_it_ends_with_the_same_bits(run, experiment, ended, root, tmp_path, mode):
    """The second process starts from the compiled package that the first one stored."""
    from craft import config, store

    store.write_json(tmp_path / "experiment.json", config.to_dict(experiment))
    flags = [
        "--config",
        tmp_path / "experiment.json",
        "--compile",
        mode,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--threads",
        "1",
    ]
    flags += [
        "--checkpoint.every",
        "4",
        "--checkpoint.keep",
        "9",
        "--evaluate.every",
        "3",
        "--evaluate.batches",
        "2",
        "--sample.tokens",
        "4",
    ]
    flags += ["--track.wandb", "off"]

    def start(out, *more):
        command = [sys.executable, "-m", "experiments.char_1m", *map(str, flags), "--out", str(out), *more]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start(tmp_path / "whole")
    expected = ended(tmp_path / "whole")
    for k in (4, 12):
        out = tmp_path / f"at{k}"
        start(out)
        for found in checkpoint.find(out / "checkpoints"):
            if found.step > k:
                store.remove(found.path)  # as if the process had died after the save of step k
        assert "resumed after step" in start(out, "--resume", "auto")
        assert ended(out) == expected, f"resumed after step {k}"
