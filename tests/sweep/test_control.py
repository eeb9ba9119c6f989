"""A sweep on this machine: every trial once, whatever happens to one of them or to the controller."""

import os
import random
import signal
import subprocess
import sys
import time

import attrs
import pytest

from craft.errors import UsageError
from craft.store import Busy, lock
from craft.sweep.control import JOURNAL, Sweep, begin, trial_directory
from craft.sweep.journal import Journal
from craft.sweep.space import product, seeded

NAME = "char_1m"


@pytest.fixture
def sweep(tiny, quick, tmp_path):
    """Make a sweep in a folder, or go on with it."""

    def make(trials=None, folder="sweep", pack=4, **more):
        said: list[str] = []
        if trials is not None:
            begin(tmp_path / folder, {"name": NAME}, trials).close()
        run = attrs.evolve(quick(""), out=None)
        return Sweep(tmp_path / folder, tiny(accumulate=1), run, NAME, pack, said.append, **more)

    return make


def rows(sweep):
    with Journal(sweep.directory / JOURNAL) as journal:
        return journal.trials()


def test_every_trial_is_trained(sweep):
    made = sweep(seeded(product({"lr": [0.02, 0.01], "model.dropout": [0.0, 0.2]}), 2), pack=3)
    assert made.go() == 0
    found = rows(made)
    assert [row.status for row in found] == ["finished"] * 8
    assert all(row.step == 8 and row.result["eval/loss"] > 0 and row.seconds > 0 for row in found)
    assert all((trial_directory(made.directory, row.number) / "config.json").is_file() for row in found)
    with Journal(made.directory / JOURNAL) as journal:
        assert journal.read("packs") == [[0, 1], [4, 5], [2, 3], [6, 7]]  # dropout of 0 is another program


def test_a_finished_sweep_is_left_as_it_is(sweep):
    made = sweep(product({"lr": [0.02, 0.01]}))
    made.go()
    before = rows(made)
    assert sweep().go() == 0
    assert rows(made) == before


def test_one_that_crashes_is_told_and_the_others_go_on(sweep):
    made = sweep([*product({"lr": [0.02, 1e30]}), {"context": 10**6}])
    assert made.go() == 0
    good, wild, crashed = rows(made)
    assert (good.status, wild.status, crashed.status) == ("finished", "diverged", "failed")
    assert "is not finite" in wild.error
    assert "Traceback" in crashed.error


def test_a_pack_that_does_not_fit_is_halved(sweep, monkeypatch):
    from craft.sweep import drive as driving

    real, sizes = driving.drive, []

    def drive(trials, interrupt, **more):
        sizes.append(len(trials))
        if len(trials) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")
        return real(trials, interrupt, **more)

    monkeypatch.setattr("craft.sweep.control.drive", drive)
    made = sweep(product({"lr": [0.02, 0.01, 0.03]}))
    made.go()
    assert [row.status for row in rows(made)] == ["finished"] * 3
    assert sizes == [3, 2, 1, 1, 1]


def test_stopped_it_goes_on_with_the_same_packs(sweep):
    def stop(step, numbers):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    made = sweep(product({"lr": [0.02, 0.01, 0.03]}), pack=2, watch=stop)
    assert made.go() == signal.SIGTERM
    assert [(row.status, row.owner) for row in rows(made)] == [("waiting", "")] * 3
    again = sweep(pack=7)
    assert again.go() == 0
    assert [row.status for row in rows(made)] == ["finished"] * 3
    with Journal(made.directory / JOURNAL) as journal:
        assert journal.read("packs") == [[0], [1, 2]]


def test_two_controllers_do_not_collide(sweep):
    made = sweep(product({"lr": [0.02]}))
    with lock(made.directory), pytest.raises(Busy, match="is in use by process"):
        made.go()
    assert rows(made)[0].status == "waiting"


SCRIPT = """
import sys
from pathlib import Path
import torch
from craft import data
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.run import Checkpoints, Evaluations, Run, Samples, Track
from craft.sweep.control import Sweep
from experiments.char_1m import Char1M
torch.set_num_threads(1)
model = Sequence(width=16, depth=1, dropout=0.2, pattern=(Attention(heads=2), FeedForward(expand=2.0)))
experiment = Char1M(steps=40, batch=4, context=16, model=model, data=data.Text(source=sys.argv[2]))
run = Run(device="cpu", precision="fp32", compile="none", threads=1, checkpoint=Checkpoints(every=5),
          evaluate=Evaluations(every=10, batches=2), sample=Samples(tokens=0), track=Track(wandb="off"))
Sweep(Path(sys.argv[1]), experiment, run, "char_1m", 3, lambda text: None).go()
"""


def works(directory, process):
    """Tell whether a process has taken trials."""
    with Journal(directory / JOURNAL) as journal:
        return any(row.status == "running" and row.owner.endswith(f":{process.pid}") for row in journal.trials())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_it_ends_with_the_same_results(tmp_path, text):
    """Six trials in two packs; what has ended stays ended, and all ends with the numbers of a sweep that nobody killed."""
    trials = product({"lr": [0.02, 0.01, 0.005, 0.03, 0.04, 0.015]})
    places = [tmp_path / "whole", tmp_path / "killed"]
    for place in places:
        begin(place, {"name": NAME}, trials).close()
    commands = [[sys.executable, "-c", SCRIPT, str(place), str(text)] for place in places]
    subprocess.run(commands[0], check=True)
    draw, kills = random.Random(5), 0
    ended: dict = {}
    while True:
        process = subprocess.Popen(commands[1])
        while kills < 5 and process.poll() is None and not works(places[1], process):
            time.sleep(0.01)
        try:
            assert process.wait(draw.uniform(0, 0.5) * (kills > 0) if kills < 5 else 120) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        with Journal(places[1] / JOURNAL) as journal:
            now = {row.number: row for row in journal.trials() if row.status == "finished"}
        assert ended.items() <= now.items()
        ended = now
    assert kills >= 1
    found = []
    for place in places:
        with Journal(place / JOURNAL) as journal:
            found.append([(row.number, row.status, row.step, row.result) for row in journal.trials()])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda folder, make: begin(folder / "a", {}, []), "got a space without a trial"),
        (lambda folder, make: begin(folder, {}, [{}]), "which is taken; choose another directory, or go on with --resume"),
        (lambda folder, make: make(folder="none").go(), r"but it has no journal\.sqlite"),
        (lambda folder, make: make([{}], pack=0), "got --pack 0; expected 1 or more"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, sweep, act, problem):
    (tmp_path / "something").write_text("x")
    with pytest.raises(UsageError, match=problem):
        act(tmp_path, sweep)
