"""Mixtures have exact shares, and are functions of the sample's number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft.data.mixture import BLOCK, Mixture


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.integers(0, 2**40))
def test_each_source_has_its_share_in_every_block_and_its_samples_in_order(weights, seed):
    weights = [weight / sum(weights) for weight in weights]
    source_N, number_N = Mixture(weights, seed).draw(0, 2 * BLOCK)
    for source, weight in enumerate(weights):
        own = source_N == source
        assert abs(int(own[:BLOCK].sum()) - weight * BLOCK) <= 1
        assert sorted(number_N[own].tolist()) == list(range(int(own.sum())))


def test_a_piece_equals_the_whole():
    mixture = Mixture([0.2, 0.3, 0.5], seed=4)
    whole = mixture.draw(0, BLOCK + 50)
    piece = Mixture([0.2, 0.3, 0.5], seed=4).draw(BLOCK - 20, 40)
    assert all(torch.equal(a[BLOCK - 20 : BLOCK + 20], b) for a, b in zip(whole, piece, strict=True))
    assert not torch.equal(whole[0], Mixture([0.2, 0.3, 0.5], seed=5).draw(0, BLOCK + 50)[0])


def test_one_source_is_its_own_order():
    source_N, number_N = Mixture([1.0], seed=3).draw(7, 5)
    assert source_N.tolist() == [0] * 5
    assert number_N.tolist() == [7, 8, 9, 10, 11]


def test_the_samples_of_a_source_are_counted():
    assert Mixture([0.25, 0.75], seed=0).samples(1, 400) == pytest.approx(300)
