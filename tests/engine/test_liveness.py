"""Graphs of which the memory and the work can be counted by hand."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from craft.engine.liveness import Work, add, examine, room

SIDE = 64
ONE = SIDE * SIDE * 4
"""Bytes of one matrix."""


def examined(function, inputs=2):
    return examine(make_fx(function, tracing_mode="fake")(*(torch.ones(SIDE, SIDE) for _ in range(inputs))))


def test_what_is_fused_takes_no_memory():
    found = examined(lambda a, b: [((a + b) * 2).relu()])
    assert (found.peak, found.results) == (ONE, ONE)
    assert found.work.calls == 1
    assert found.work.moved == 3 * ONE


def test_products_hold_what_they_read_and_write():
    found = examined(lambda a, b: [((a + 1) @ b) @ b])
    assert found.peak == 2 * ONE  # a + 1 is gone before the second product
    assert found.work == Work(wide=2 * 2.0 * SIDE**3, moved=2.0 * ONE, calls=3)
    kept = examined(lambda a, b: [(a + 1) @ b, (b + 1) @ a])
    assert (kept.peak, kept.results) == (3 * ONE, 2 * ONE)


def test_a_pass_writes_over_what_it_reads_last():
    assert examined(lambda a, b: [(a @ b).relu() @ b]).peak == 2 * ONE


def test_views_are_free():
    assert examined(lambda a, b: [(a.t().reshape(-1)[: SIDE * 2] + 1).sum()]).peak < ONE


def test_work_in_16_bits_and_in_batches_is_told_apart():
    graph = make_fx(lambda x, y: [torch.bmm(x, y)], tracing_mode="fake")(*(torch.ones(2, 8, 8, dtype=torch.bfloat16),) * 2)
    found = examine(graph).work
    assert (found.narrow, found.batched, found.wide) == (2048.0, 2048.0, 0.0)
    assert add([found, found]).narrow == 4096.0


def test_the_loss_by_chunks_needs_room_beside_its_results():
    x, weight = torch.ones(64, 8, device="meta"), torch.ones(8, 1000, device="meta")
    targets = torch.ones(64, dtype=torch.int64, device="meta")
    judge = torch.ops.craft.judge_chunks.default
    needed = [room(judge, (x, weight, targets, targets, True, number)) for number in (1, 4)]
    assert needed[0] > needed[1] > 0
    assert room(torch.ops.aten.mm.default, (x, weight)) == 0
