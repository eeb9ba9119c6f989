"""What is said of each target is what its probabilities say, in one chunk or in many, told apart or not."""

from __future__ import annotations

import math

import pytest
import torch

from craft import policy, tree
from craft.evaluate.judge import judge
from craft.types import Context


def naive(logits_TV, targets_T):
    """Go through the targets one by one, with Python's own floats."""
    found = []
    for row, target in zip(logits_TV.double().tolist(), targets_T.tolist(), strict=True):
        top = max(row)
        total = sum(math.exp(value - top) for value in row)
        shares = [math.exp(value - top) / total for value in row]
        brier = sum((share - (place == target)) ** 2 for place, share in enumerate(shares))
        found.append((math.log(shares[target]), row.index(top) == target, max(shares), brier))
    return [list(values) for values in zip(*found, strict=True)]


def sample(make_task):
    task, params = make_task()
    batch = next(iter(task.data.split("train")))
    likeliest = task.model.apply(params, batch.inputs_BT, Context())[0].argmax(-1)
    some = torch.arange(batch.inputs_BT.shape[1]) % 3 == 0
    return task.model, params, batch._replace(targets_BT=torch.where(some, likeliest, batch.targets_BT))


@pytest.mark.parametrize("chunk_bytes", [2**24, 4 * 28 * 5, 1])
@pytest.mark.parametrize("apart", [True, False])
def test_each_target_equals_the_naive_reference(make_task, monkeypatch, chunk_bytes, apart):
    monkeypatch.setattr("craft.evaluate.judge.CHUNK_BYTES", chunk_bytes)
    model, params, batch = sample(make_task)
    model = model if apart else model._replace(features=None, head=None)
    found = judge(model, params, batch.inputs_BT, batch.targets_BT, Context())
    logits = model.apply(params, batch.inputs_BT, Context())[0]
    log, hit, sure, brier = naive(logits.flatten(0, 1), batch.targets_BT.flatten())
    assert found.log_BT.shape == batch.targets_BT.shape
    assert found.log_BT.flatten().tolist() == pytest.approx(log, abs=1e-5)
    assert found.hit_BT.flatten().tolist() == hit
    assert found.confidence_BT.flatten().tolist() == pytest.approx(sure, abs=1e-6)
    assert found.brier_BT.flatten().tolist() == pytest.approx(brier, abs=1e-5)
    assert any(hit)
    assert not all(hit)


def test_half_precision_is_widened_before_the_logarithm(make_task):
    model, params, batch = sample(make_task)
    with policy.using(compute=torch.bfloat16):
        found = judge(model, params, batch.inputs_BT, batch.targets_BT, Context())
    assert found.log_BT.dtype == torch.float32
    wide = judge(model, tree.cast(params, torch.float64), batch.inputs_BT, batch.targets_BT, Context())
    assert wide.log_BT.dtype == torch.float64
    assert (found.log_BT - wide.log_BT).abs().max() < 0.2


def test_a_large_vocabulary_is_judged_alike(make_task):
    class Many:
        size = 1500

    task, params = make_task(tokenizer=Many())
    batch = next(iter(task.data.split("train")))
    found = judge(task.model, params, batch.inputs_BT, batch.targets_BT, Context())
    logits = task.model.apply(params, batch.inputs_BT, Context())[0]
    log, hit, _, _ = naive(logits.flatten(0, 1), batch.targets_BT.flatten())
    assert found.log_BT.flatten().tolist() == pytest.approx(log, abs=1e-5)
    assert found.hit_BT.flatten().tolist() == hit
