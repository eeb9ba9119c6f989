from typing import Any

import pytest

from tools.bench.bars import against, bars, shares
from tools.bench.pairs import Ratio


def named(results, words):
    return next(bar for bar in bars(results) if words in bar.name)


def test_without_results_nothing_is_held_and_nothing_is_missing():
    empty = bars({})
    assert all(bar.held is None for bar in empty)
    assert all(bar.measured.startswith("not run") for bar in empty)
    assert len({bar.name for bar in empty}) == len(empty)


def test_the_fastest_variant_counts(results):
    found = against(results["steady"]["1m"], "craft step bf16", lambda one: one["peer"] == "plain")
    assert found is not None
    assert found[0] == Ratio(median=3.0, least=2.5, rounds=3)
    assert found[1] == "plain eager bf16"
    bar = named(results, ">= 2.5x best plain PyTorch as users run it; Craft on the identical")
    assert bar.held
    assert "3.00x (least 2.50x of 3 rounds; plain eager bf16)" in bar.measured


def test_a_round_without_the_anchor_does_not_count(results):
    one = results["steady"]["1m"]["contestants"]["plain eager bf16"]
    one["beside"]["craft step bf16"] = [None, 20.0, None]
    found = against(results["steady"]["1m"], "craft step bf16", lambda one: one["precision"] == "bf16")
    assert found is not None
    assert found[0] == Ratio(median=2.5, least=2.5, rounds=1)


def test_the_share_is_that_of_the_same_round(results):
    case = results["steady"]["1m"]
    assert shares(case, case["contestants"]["craft step bf16"]) == pytest.approx([0.6, 0.15, 0.6])
    assert named(results, "product rate at 1m, gpt2").held


def test_start_and_import_are_compared(results):
    rounds: dict[str, Any] = {"import torch": {"warm": 1.0}, "import torch again": {"warm": 1.2}}
    rounds |= {
        "craft none bf16, 4 layers": {"cold": 3.0, "warm": 3.0},
        "craft block bf16, 4 layers": {"not_run": "no compiler"},
    }
    results = {"start": {"round 0": rounds}}
    assert named(results, "none: <= import torch + 2 s").held
    assert named(results, "second start, none").held is False
    assert named(results, "block, 4 layers").measured == "not run: no compiler"


def test_memory_needs_both_the_size_and_the_pace():
    def one(mb, ms, memory=""):
        return {"peer": "craft", "memory": memory, "peak_mb": mb, "ms": ms}

    fast, lean = one(3000, [10.0, 10.0]), one(1500, [12.0, 12.0], "auto")
    results = {"memory": {"contestants": {"fast": fast, "lean": lean}}}
    bar = named(results, "--memory auto")
    assert bar.held
    assert bar.measured == "1.57 GB at 83% (lean)"
    lean["ms"] = [14.0, 14.0]
    assert named(results, "--memory auto").held is False


def test_quality_is_held_by_five_seeds_only():
    seed = {"seconds": 20.0, "loss": 1.87, "reached": True, "updates": 200}
    assert named({"quality": {"craft seed 0": seed}}, "Shakespeare").held is None
    five = {f"craft seed {number}": seed for number in range(5)}
    assert named({"quality": five}, "Shakespeare").held
    five["craft seed 3"] = seed | {"reached": False, "loss": 1.9}
    assert named({"quality": five}, "Shakespeare").held is False


def test_a_prediction_is_held_by_eight_configurations():
    exact = {"memory_mb": 100.0, "first_start_memory_mb": 120.0, "seconds_per_step": 1.0}
    pairs = {str(number): {"predicted": exact, "measured": exact} for number in range(8)}
    assert named({"plan": pairs}, "craft plan").held
    pairs["7"] = {"predicted": exact, "measured": exact | {"memory_mb": 130.0}}
    assert named({"plan": pairs}, "craft plan").held is False


def test_a_length_is_held_within_a_tenth():
    near = {"updates": 9, "auto_over_best": 1.08, "measured": {"auto": 1.0}}
    bar = named({"default": {"30 s": near, "1 h": near | {"measured": {}}}}, "over 1 h")
    assert bar.held
    assert "predicted" in bar.measured


def test_loading_is_held_within_a_twentieth():
    def bar(mean):
        found = {"1m": {"step_ms": [80.0, 90.0, 100.0], "batch_ms": [0.1], "mean_ms": [mean], "not_run": {}}}
        return next(one for one in bars({"loading": found}) if one.name.startswith("a batch of 1m from"))

    assert bar(4.5).held
    assert not bar(4.6).held
    assert bar(4.5).measured == "4.50 ms of 90.0: 5.0%"
