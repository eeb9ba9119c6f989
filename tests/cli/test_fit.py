"""Settings that fit a size: never more than a larger size would have got, and refused where none does."""

import attrs
import pytest

from craft import optim
from craft.cli.fit import fit, settings
from craft.engine.predict import predict
from craft.errors import UsageError
from craft.models import Sequence
from craft.run import Run

RUN = Run(device="cpu", precision="fp32", compile="none", threads=1)


@pytest.fixture
def experiment(tiny):
    return tiny(model=Sequence(width=128, depth=3), accumulate=1, batch=24, context=64, optimizer=optim.Muon())


def test_the_ways_come_from_fast_to_slow(experiment):
    found = [(one.experiment.accumulate, one.experiment.optimizer.bits, one.rematerialise) for one in settings(experiment)]
    parts = [(2, True), (4, True), (8, True), (24, True)]
    assert found[:2] == [(1, 32, False), (1, 32, True)]
    assert found[2:6] == [(number, 32, again) for number, again in parts]
    assert found[6:] == [(number, 8, again) for number, _, again in found[:6]]


def test_an_experiment_without_such_fields_has_two_ways():
    @attrs.frozen
    class Bare:
        optimizer: optim.SGD = optim.SGD(momentum=0.0)

    assert [one.rematerialise for one in settings(Bare())] == [False, True]


def test_words(experiment):
    assert fit(experiment, RUN).experiment is experiment
    small = fit(experiment, attrs.evolve(RUN, memory="small"))
    assert small.experiment == attrs.evolve(experiment, optimizer=attrs.evolve(experiment.optimizer, bits=8))
    assert small.choice is not None
    assert small.choice.rematerialise
    assert small.choice.why == "activations are computed again, moments have 8 bits"
    assert fit(experiment, attrs.evolve(RUN, memory="small"), fixed=True) == (experiment, None)


def test_a_smaller_size_never_gets_more(experiment, monkeypatch):
    from craft import engine

    machine, process = engine.start(RUN), engine.resident_bytes()
    monkeypatch.setattr(engine, "resident_bytes", lambda: process)  # it grows from one prediction to the next

    def peak(fitted):
        assert fitted.choice is not None
        one = attrs.evolve(machine, rematerialise=fitted.choice.rematerialise)
        return predict(fitted.experiment.build(), one, process=process).peak

    ways = [
        predict(one.experiment.build(), attrs.evolve(machine, rematerialise=one.rematerialise), process=process).peak
        for one in settings(experiment)
    ]
    former, chosen = float("inf"), []
    for size in sorted({*ways, max(ways) + (1 << 28)}, reverse=True):
        fitted = fit(experiment, attrs.evolve(RUN, memory=f"{size / 2**20 + 1:.0f}MB"))
        assert peak(fitted) <= former
        former = peak(fitted)
        assert fitted.choice is not None
        chosen.append((fitted.experiment.accumulate, fitted.choice.rematerialise))
    assert chosen[0] == (1, False)
    assert (1, True) in chosen
    with pytest.raises(UsageError, match="the smallest setting is predicted to take"):
        fit(experiment, attrs.evolve(RUN, memory=f"{min(ways) / 2**20 - 1:.0f}MB"))
