"""Sums apart by position, frequency and confidence are those of going through the targets one by one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from craft import tree
from craft.evaluate.breakdown import AMOUNTS, BINS, EDGES, bin_by_confidence, breakdown, group_by_count
from craft.evaluate.judge import judge
from craft.types import Context, Layout


def read(state):
    return state["params"]


def case(make_task, layout=()):
    task, params = make_task()
    batch = next(iter(task.data.split("train")))
    weights = torch.linspace(0, 2, batch.weights_BT.numel()).reshape(batch.weights_BT.shape).floor() / 2
    return task, params, batch._replace(weights_BT=weights, layout=layout)


def naive(task, params, batch, group, place):
    judged = judge(task.model, params, batch.inputs_BT, batch.targets_BT, Context(layout=batch.layout))
    amounts: dict[str, dict[int, list[float]]] = {name: {} for name in ("position", "seen", "bin")}
    rows = zip(*(value.flatten().tolist() for value in (*judged, batch.weights_BT, batch.targets_BT, place)), strict=True)
    for log, hit, sure, brier, weight, target, position in rows:
        found = next(m for m in range(BINS) if sure <= (m + 1) / BINS or m == BINS - 1)
        for name, key in (("position", position), ("seen", group[target]), ("bin", found)):
            sums = amounts[name].setdefault(key, [0.0] * len(AMOUNTS))
            for index, value in enumerate((1.0, -log, float(hit), sure, brier)):
                sums[index] += weight * value
    return amounts


def check(found_NA, expected):
    for row, sums in enumerate(found_NA.tolist()):
        assert sums == pytest.approx(expected.get(row, [0.0] * len(AMOUNTS)), abs=1e-5)


def layout_of(batch):
    """Cut each sample into a document of five tokens and one of the rest."""
    time = batch.inputs_BT.shape[1]
    position = torch.cat((torch.arange(5), torch.arange(time - 5))).expand_as(batch.inputs_BT)
    return Layout(position, (torch.arange(time) >= 5).long().expand_as(batch.inputs_BT))


@pytest.mark.parametrize("packed", [False, True])
def test_sums_equal_the_naive_reference(make_task, packed):
    task, params, batch = case(make_task)
    place = torch.arange(batch.inputs_BT.shape[1]).expand_as(batch.inputs_BT)
    if packed:
        batch = batch._replace(layout=layout_of(batch))
        place = batch.layout.position_BT
    group_V = torch.arange(task.tokenizer.size) % 4
    sums = breakdown(task.model, read)({"params": params}, batch, group_V)
    expected = naive(task, params, batch, group_V.tolist(), place)
    assert len(expected["bin"]) > 2
    check(sums.position_TA, expected["position"])
    check(sums.seen_NA, expected["seen"])
    check(sums.confidence_MA, expected["bin"])
    assert sums.position_TA.dtype == torch.float64
    weight = float(batch.weights_BT.sum())
    assert [float(part[:, 0].sum()) for part in sums] == pytest.approx([weight] * 3)


def test_what_is_hidden_does_not_count_even_where_it_is_infinite(make_task):
    task, params, batch = case(make_task)
    batch = batch._replace(weights_BT=torch.zeros_like(batch.weights_BT))
    broken = {**params, "head": torch.full_like(params["head"], math.inf)}
    sums = breakdown(task.model, read)({"params": broken}, batch, None)
    assert sums.position_TA.abs().sum() == 0
    assert sums.seen_NA.shape == (0, len(AMOUNTS))


def test_it_compiles_whole_and_maps_over_a_pack(make_task):
    task, params, batch = case(make_task)
    group_V = torch.arange(task.tokenizer.size) % 4
    measure = breakdown(task.model, read)
    plain = measure({"params": params}, batch, group_V)
    compiled = torch.compile(measure, fullgraph=True, backend="aot_eager")({"params": params}, batch, group_V)
    pack = {"params": tree.stack([params, tree.map(torch.neg, params)])}
    packed = torch.func.vmap(measure, in_dims=(0, None, None))(pack, batch, group_V)
    for one, other, first in zip(plain, compiled, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one, first[0], rtol=1e-4, atol=1e-4)


def test_a_bin_holds_its_upper_end():
    edges = torch.arange(BINS + 1, dtype=torch.float64) / BINS
    assert bin_by_confidence(edges).tolist() == [0, *range(BINS)]
    assert bin_by_confidence(edges[:-1] + 1e-6).tolist() == list(range(BINS))
    assert bin_by_confidence(torch.tensor([math.nan, 1.0 + 1e-6])).tolist() == [0, BINS - 1]


@given(count=st.integers(0, 10**15))
def test_the_group_of_a_count_is_its_number_of_digits(count):
    [group] = group_by_count(torch.tensor([count])).tolist()
    assert group == min(len(str(count)) if count else 0, len(EDGES))
