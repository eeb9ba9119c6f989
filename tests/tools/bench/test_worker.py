"""The line protocol with real peers, in this process and in processes of their own."""

import io
import json
import sys

import pytest

from tools.bench import material
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun
from tools.bench.setup import Setup
from tools.bench.worker import missing, serve

OURS, PLAIN = Contestant("craft", "none"), Contestant("plain", "eager")


@pytest.fixture
def converse(tiny, tmp_path):
    """Give commands to a contestant in this process and return what it answers."""
    folder = str(material.make(tiny, tmp_path / "material").folder)

    def run(one, commands, **more):
        answers = io.StringIO()
        serve(Setup(one, tiny, folder, 1, **more), io.StringIO(commands), answers)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    return run


def test_the_plain_loop_trains(converse, tiny):
    facts, first, more = converse(PLAIN, "steps 1\nsteps 40\nquit\n")
    assert facts["parameters"] == tiny.parameters
    assert more["loss"] < first["loss"]
    assert len(more["each"]) == 40


def test_craft_trains(converse, tiny):
    facts, first, more = converse(OURS, "steps 1\nsteps 40\nquit\n")
    assert facts["stand_in"] or facts["parameters"] == tiny.parameters
    assert facts["mode"] == "none"
    assert more["loss"] < first["loss"]


def test_craft_and_the_plain_loop_are_one_model(converse):
    ours, plain = (converse(one, "steps 1\nsteps 8\nquit\n") for one in (OURS, PLAIN))
    if ours[0]["stand_in"]:
        pytest.skip("this commit has no GPT-2")
    assert ours[1]["loss"] == pytest.approx(plain[1]["loss"], abs=1e-5)
    assert ours[2]["loss"] == pytest.approx(plain[2]["loss"], abs=1e-4)


def test_craft_writes(converse, tiny):
    ready, answer = converse(OURS, "generate 12\nquit\n", job="generate", options={"prompt": 3})
    assert set(ready) == {"stand_in"}
    assert len(answer["tokens"]) == 12
    assert all(0 <= token < tiny.vocabulary for token in answer["tokens"])


def test_what_a_peer_cannot_do_is_said(converse):
    assert converse(PLAIN, "", job="generate") == [{"missing": "plain has no way to generate"}]


def test_a_missing_package_is_named_with_its_remedy(converse, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "tools.bench.peers.jax_optax", raising=False)
    monkeypatch.setitem(sys.modules, "flax", None)
    [answer] = converse(Contestant("jax_optax", "jit"), "")
    assert answer["missing"].endswith("is not installed (pip install -e '.[bench]')")
    assert missing(ModuleNotFoundError("no", name="jax.numpy")).startswith("jax is not installed")


def test_what_goes_wrong_is_the_last_answer(converse):
    [answer] = converse(Contestant("craft", "sideways"), "")
    assert "error" in answer


def test_a_process_of_its_own_takes_turns(session, tiny):
    worker = session.worker(PLAIN, tiny, first="steps 1")
    try:
        assert worker.hear()["parameters"] == tiny.parameters
        assert worker.hear()["loss"] > 0
        assert len(worker.ask("steps 2")["each"]) == 2
        assert worker.ask("memory")["peak_mb"] > 50
        assert worker.cpu() > 0
    finally:
        worker.end()
    with pytest.raises(NotRun, match="ended by itself"):
        worker.ask("steps 1")
