"""A whole split in detail: its means are those of the evaluation, and its tables those of going through it."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
import torch

from craft import evaluate
from craft.errors import UsageError
from craft.evaluate.breakdown import BINS
from craft.evaluate.judge import judge
from craft.step import Evaluation
from craft.types import Context


def found(make_task, engine, **more):
    task, params = make_task()
    return task, params, evaluate.detail(task, {"params": params}, engine, **more)


def targets(task, split):
    """Return (position, target, batch, row) of everything that counts."""
    for batch in task.data.split(split):
        for row, position in (batch.weights_BT > 0).nonzero().tolist():
            yield position, int(batch.targets_BT[row, position]), batch, row


def test_the_means_are_those_of_the_evaluation(make_task, engine):
    task, params, detail = found(make_task, engine)
    means = evaluate.measure(task.evaluation, {"params": params}, engine)
    assert {name: detail[name] for name in ("loss", "accuracy")} == pytest.approx(
        {name: means[name] for name in ("loss", "accuracy")}, rel=1e-5
    )
    assert detail["weight"] == sum(1 for _ in targets(task, "validation")) == 99


def test_loss_by_position_and_by_frequency(make_task, engine):
    task, params, detail = found(make_task, engine)
    counts = Counter(target for _, target, _, _ in targets(task, "train"))
    by_position: dict[int, list[float]] = {}
    by_group: dict[int, list[float]] = {}
    tokens = Counter(len(str(counts[v])) * (v in counts) for v in range(task.tokenizer.size))
    for position, target, batch, row in targets(task, "validation"):
        judged = judge(task.model, params, batch.inputs_BT, batch.targets_BT, Context())
        loss = -float(judged.log_BT[row, position])
        by_position.setdefault(position, []).append(loss)
        by_group.setdefault(len(str(counts[target])), []).append(loss)
    assert [one["position"] for one in detail["positions"]] == list(range(1, task.context + 1))
    for one in detail["positions"]:
        losses = by_position[one["position"] - 1]
        assert (one["weight"], one["loss"]) == (len(losses), pytest.approx(sum(losses) / len(losses), rel=1e-5))
    groups = {len(str(one["from"])) if one["from"] else 0: one for one in detail["frequencies"]}
    assert {group: one["tokens"] for group, one in groups.items()} == tokens
    assert len(groups) >= 3
    for group, one in groups.items():
        losses = by_group.get(group, [])
        assert one["weight"] == len(losses)
        assert one["loss"] == (pytest.approx(sum(losses) / len(losses), rel=1e-5) if losses else None)
    assert [(one["from"], one["to"]) for one in detail["frequencies"]][:2] == [(0, 0), (1, 9)]


def test_calibration(make_task, engine):
    task, params = make_task()
    [*batches] = task.data.split("validation")
    for number, batch in enumerate(batches):  # too modest where it is sure, too bold where it is not
        logits = task.model.apply(params, batch.inputs_BT, Context())[0].softmax(-1)
        likeliest, least = logits.argmax(-1), logits.argmin(-1)
        batches[number] = batch._replace(targets_BT=torch.where(logits.amax(-1) > 0.5, likeliest, least))
    chosen = attrs.evolve(task, evaluation=task.evaluation._replace(batches=lambda split: batches))
    detail = evaluate.detail(chosen, {"params": params}, engine)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for batch, row, position in [(one, *place) for one in batches for place in one.weights_BT.nonzero().tolist()]:
        judged = judge(task.model, params, batch.inputs_BT, batch.targets_BT, Context())
        sure, hit = float(judged.confidence_BT[row, position]), bool(judged.hit_BT[row, position])
        bins[next(m for m in range(BINS) if sure <= (m + 1) / BINS)].append((sure, hit))
    total, error = sum(map(len, bins)), 0.0
    for one, own in zip(detail["bins"], bins, strict=True):
        assert one["weight"] == len(own)
        if own:
            sure, hits = (sum(values) / len(own) for values in zip(*own, strict=True))
            assert (one["confidence"], one["accuracy"]) == (pytest.approx(sure), pytest.approx(hits))
            error += len(own) / total * abs(sure - hits)
        else:
            assert one["confidence"] is None
    assert detail["calibration_error"] == pytest.approx(error)
    assert (detail["bins"][0]["from"], detail["bins"][-1]["to"]) == (0.0, 1.0)
    assert error > 0.01


def test_a_model_that_is_always_right_is_calibrated(make_task, engine):
    task, params = make_task()

    def sure(params, ids_BT, ctx):
        """Be told the answer: the next id is that of the text at the same place."""
        return 50.0 * torch.nn.functional.one_hot(answers[ids_BT.shape], task.tokenizer.size).float(), {}

    batch = next(iter(task.data.split("train")))
    answers = {batch.inputs_BT.shape: batch.targets_BT}
    model = task.model._replace(apply=sure, features=None, head=None)
    told = attrs.evolve(task, model=model, evaluation=task.evaluation._replace(batches=lambda split: [batch]))
    detail = evaluate.detail(told, {"params": params}, engine)
    assert (detail["accuracy"], detail["bins"][-1]["weight"]) == (1.0, batch.weights_BT.sum())
    assert detail["calibration_error"] == pytest.approx(0.0, abs=1e-6)
    assert detail["brier"] == pytest.approx(0.0, abs=1e-6)


def test_counts_that_are_given_are_used_and_none_are_needed(make_task, engine):
    task, params = make_task()
    state = {"params": params}
    given = evaluate.detail(task, state, engine, count_V=torch.full((task.tokenizer.size,), 50))
    assert [(one["from"], one["to"], one["weight"]) for one in given["frequencies"]] == [(10, 99, 99.0)]

    class Plain:
        fingerprint, tokens = "", 36

    blind = evaluate.detail(attrs.evolve(task, data=Plain()), state, engine)
    assert blind["frequencies"] == []
    assert blind["positions"] == evaluate.detail(task, state, engine)["positions"]


def test_frequencies_count_targets_that_count(make_task):
    task, _ = make_task()
    counts = evaluate.frequencies(task.data.split("train"), task.tokenizer.size)
    assert counts.sum() == len(task.data.ids) - 1
    assert counts.tolist() == torch.bincount(task.data.ids[1:], minlength=task.tokenizer.size).tolist()


def test_progress_counts_batches(make_task, engine):
    done: list[int] = []
    task, _, _ = found(make_task, engine, progress=done.append)
    assert done == list(range(1, 1 + sum(1 for _ in task.data.split("validation"))))


def test_what_cannot_be_judged(make_task, engine):
    task, params = make_task()
    state = {"params": params}
    with pytest.raises(UsageError, match="has no model of sequences"):
        evaluate.detail(attrs.evolve(task, model=None), state, engine)
    other = Evaluation(task.evaluation.measure, lambda split: [torch.zeros(3)])
    with pytest.raises(UsageError, match=r"got batches of Tensor; detail needs those of .* types\.Batch"):
        evaluate.detail(attrs.evolve(task, evaluation=other), state, engine)
    with pytest.raises(UsageError, match="got no batch of the split 'test'"):
        evaluate.detail(attrs.evolve(task, evaluation=other._replace(batches=lambda split: [])), state, engine, split="test")


def test_numbers_that_are_not_finite_are_none(make_task, engine):
    task, params = make_task()
    detail = evaluate.detail(task, {"params": {**params, "norm": params["norm"] * float("nan")}}, engine)
    assert detail["loss"] is None
    assert detail["positions"][0]["loss"] is None
