"""The coordinate check: what a few steps change is as large at every width, and without the multipliers it is not.

Yang et al. 2022, arXiv:2203.03466, appendix D.1.
"""

import math

import pytest
import torch

from craft import grad, losses, optim, param, step
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.types import Batch, Context

WIDTHS = (64, 128, 256, 512)
IDS = torch.randint(50, (4, 33), generator=torch.Generator().manual_seed(0))
BATCH = Batch(IDS[:, :-1], IDS[:, 1:], torch.ones(4, 32), torch.arange(4))


def slope(optimizer: optim.AdamW | optim.Muon, lr: float, *, tuned: int, tied: bool = False) -> float:
    """Return the growth of the logits' change with the width, as a power of it."""
    sizes = []
    for width in WIDTHS:
        pattern = (Attention(heads=width // 32), FeedForward())
        model = Sequence(width, pattern, depth=2, tuned_width=tuned, tied=tied).build(50)
        transform = optimizer.build(model.spec, lr)
        state = step.start(param.materialise(model.spec, 0), transform, steps=10)
        update = step.build(grad.reverse(losses.next_token(model)), transform)
        before = model.apply(state.params, BATCH.inputs_BT, Context())[0]
        for _ in range(4):
            state, _ = update(state, BATCH)
        after = model.apply(state.params, BATCH.inputs_BT, Context())[0]
        sizes.append(float((after - before).square().mean().sqrt()))
    return math.log(sizes[-1] / sizes[0]) / math.log(WIDTHS[-1] / WIDTHS[0])


@pytest.mark.parametrize("tied", [False, True])
def test_adam_changes_as_much_at_every_width(tied):
    assert abs(slope(optim.AdamW(decay=0.0, clip=0.0), 2e-3, tuned=64, tied=tied)) < 0.2


def test_muon_changes_as_much_at_every_width():
    assert abs(slope(optim.Muon(decay=0.0, clip=0.0, rest=0.1), 0.02, tuned=64)) < 0.2


@pytest.mark.parametrize("optimizer", [optim.AdamW(decay=0.0, clip=0.0), optim.Muon(decay=0.0, clip=0.0)])
def test_without_the_multipliers_it_grows(optimizer):
    assert slope(optimizer, 2e-3 if isinstance(optimizer, optim.AdamW) else 0.02, tuned=0) > 0.4


def test_multipliers_are_data_in_the_spec():
    spec = Sequence(width=256, tuned_width=64).build(50).spec
    assert param.steady_rates(spec)["head"] == 0.25
    assert param.steady_rates(spec)["embed"] == 1.0
    assert param.steady_rates(spec)["blocks"]["feedforward"]["out"] == 0.25
    assert param.rates(spec)["head"] == 1.0
