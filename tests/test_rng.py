"""Keyed random numbers: known answers, the same bits in every mode, and statistics against the exact distributions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from craft import rng
from craft.types import Tensor

ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]

DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "bits": lambda key: rng.bits(key, (3, 5)),
    "uniform": lambda key: rng.uniform(key, (7,)),
    "bernoulli": lambda key: rng.bernoulli(key, 0.3, (2, 9)),
    "integers": lambda key: rng.integers(key, 1000, (11,)),
    "permute": lambda key: rng.permute(key, torch.arange(13, device=key.device), 13, rounds=3),
    "split": lambda key: rng.split(key, 3),
    "fold_in": lambda key: rng.fold_in(key, 5),
}


def pair(words: tuple[int, int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(words[0]), torch.tensor(words[1])


@pytest.mark.parametrize(("key", "counter", "expected"), ANSWERS)
def test_threefry_gives_the_published_answers(key: Any, counter: Any, expected: Any) -> None:
    assert tuple(map(int, rng.threefry(pair(key), pair(counter)))) == expected


def plain_threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Follow the paper with Python's integers."""
    schedule = (key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1])
    x, y = (counter[0] + key[0]) % 2**32, (counter[1] + key[1]) % 2**32
    for turn in range(20):
        shift = (13, 15, 26, 6, 17, 29, 16, 24)[turn % 8]
        x = (x + y) % 2**32
        y = ((y << shift | y >> (32 - shift)) % 2**32) ^ x
        if turn % 4 == 3:
            block = turn // 4 + 1
            x, y = (x + schedule[block % 3]) % 2**32, (y + schedule[(block + 1) % 3] + block) % 2**32
    return x, y


words = st.integers(0, 2**32 - 1)


@given(st.tuples(words, words), st.tuples(words, words))
def test_threefry_equals_the_paper_on_any_words(key: Any, counter: Any) -> None:
    assert tuple(map(int, rng.threefry(pair(key), pair(counter)))) == plain_threefry(key, counter)


@given(st.integers(-(2**63), 2**64 - 1))
@example(0)
@example(-1)
def test_a_key_holds_all_64_bits_of_the_seed(seed: Any) -> None:
    key = rng.key(seed)
    assert (int(key[0]) << 32 | int(key[1])) == seed % 2**64
    if seed < 2**63:
        assert torch.equal(rng.key(torch.tensor(seed)), key)


@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_are_the_same_compiled(name: Any) -> None:
    compiled: Any = torch.compile(DRAWS[name], backend="aot_eager", fullgraph=True)
    for seed in (0, 1, 2**40 + 3):
        assert torch.equal(compiled(rng.key(seed)), DRAWS[name](rng.key(seed)))


@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_are_the_same_vmapped(name: Any) -> None:
    keys = rng.split(rng.key(9), 4)
    assert torch.equal(torch.func.vmap(DRAWS[name])(keys), torch.stack([DRAWS[name](key) for key in keys]))


@pytest.mark.parametrize("name", [name for name in DRAWS if name != "permute"])
def test_a_batch_of_keys_draws_as_each_key_does(name: Any) -> None:
    keys = rng.split(rng.key(9), 6).reshape(2, 3, 2)
    alone = torch.stack([DRAWS[name](key) for key in keys.reshape(6, 2)])
    assert torch.equal(DRAWS[name](keys).reshape(alone.shape), alone)


@pytest.mark.gpu
@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_are_the_same_on_a_gpu(name: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert torch.equal(DRAWS[name](rng.key(3).cuda()).cpu(), DRAWS[name](rng.key(3)))


def test_normals_agree_compiled_and_vmapped_within_rounding() -> None:
    def draw(key: Tensor) -> Tensor:
        return rng.normal(key, (64,))

    keys = rng.split(rng.key(1), 3)
    compiled: Any = torch.compile(draw, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(keys[0]), draw(keys[0]))
    torch.testing.assert_close(torch.func.vmap(draw)(keys), torch.stack([draw(key) for key in keys]))


def test_draws_depend_on_nothing_but_the_key() -> None:
    before = torch.get_rng_state()
    one = rng.normal(rng.key(4), (10,))
    torch.manual_seed(99)
    assert torch.equal(rng.normal(rng.key(4), (10,)), one)
    torch.set_rng_state(before)
    rng.normal(rng.key(4), (10,))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_element_does_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(rng.bits(rng.key(4), (10,)), rng.bits(rng.key(4), (1000,))[:10])
    assert rng.bits(rng.key(4)).shape == ()


def chi_square_z(counts: Tensor, expected: Tensor | float) -> float:
    """Return Wilson and Hilferty's normal score of a chi-square statistic with len(counts) - 1 degrees of freedom."""
    statistic = float(((counts.double() - expected) ** 2 / expected).sum())
    freedom = counts.numel() - 1
    return (math.cbrt(statistic / freedom) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


SOURCES = {
    "counters": lambda n: rng.bits(rng.key(11), (n,)),
    "keys": lambda n: rng.bits(torch.stack([torch.zeros(n, dtype=torch.int64), torch.arange(n)], -1)),
    "split": lambda n: rng.bits(rng.split(rng.key(12), n)),
    "fold_in": lambda n: rng.fold_in(rng.key(13), torch.arange(n))[:, 1],
    "seeds": lambda n: torch.stack([rng.bits(rng.key(seed)) for seed in range(n // 64)]),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_is_uniform(source: Any, shift: Any) -> None:
    values = SOURCES[source](1 << 16)
    counts = torch.bincount((values >> shift) & 255, minlength=256)
    assert abs(chi_square_z(counts, values.numel() / 256)) < 4


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shift", [0, 28])
def test_neighbours_are_independent(source: Any, shift: Any) -> None:
    values = (SOURCES[source](1 << 16) >> shift) & 15
    counts = torch.bincount(values[:-1] * 16 + values[1:], minlength=256)
    assert abs(chi_square_z(counts, (values.numel() - 1) / 256)) < 4


@pytest.mark.parametrize("source", SOURCES)
def test_neighbours_differ_in_half_of_their_bits(source: Any) -> None:
    values = SOURCES[source](1 << 16)
    flipped = values[:-1] ^ values[1:]
    rates = torch.stack([(flipped >> bit & 1).double().mean() for bit in range(32)])
    assert (rates - 0.5).abs().max() < 5 * 0.5 / math.sqrt(flipped.numel())


def test_keys_that_are_split_or_folded_are_distinct() -> None:
    keys = torch.cat([rng.split(rng.key(0), 1000), rng.split(rng.key(1), 1000), rng.split(rng.split(rng.key(0), 1)[0], 1000)])
    assert len(set(map(tuple, keys.tolist()))) == 3000
    assert torch.equal(rng.split(rng.key(0), 10), rng.fold_in(rng.key(0).expand(10, 2), torch.arange(10)))
    assert not torch.equal(rng.fold_in(rng.key(0), 1 << 32), rng.fold_in(rng.key(0), 1))


def test_uniform_is_in_its_range_and_uniform() -> None:
    values = rng.uniform(rng.key(5), (1 << 18,))
    assert values.dtype == torch.float32
    assert 0 <= values.min() < values.max() < 1
    assert torch.equal(values * 2**24, (values * 2**24).round())
    assert abs(chi_square_z(torch.histc(values, 512, 0, 1), (1 << 18) / 512)) < 4


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.25, 0.9, 1.0])
def test_bernoulli_has_its_rate(rate: Any) -> None:
    count = 1 << 18
    for probability in (rate, torch.tensor(rate)):
        mean = float(rng.bernoulli(rng.key(6), probability, (count,)).double().mean())
        assert abs(mean - rate) <= 5 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("bound", [1, 2, 7, 1000, 2**31])
def test_integers_fill_their_range_evenly(bound: Any) -> None:
    values = rng.integers(rng.key(7), bound, (1 << 16,))
    assert values.dtype == torch.int64
    assert 0 <= values.min() <= values.max() < bound
    assert torch.equal(rng.integers(rng.key(7), torch.tensor(bound), (1 << 16,)), values)
    bins = min(bound, 64)
    if bins > 1:
        edges = torch.arange(bins + 1, dtype=torch.float64) * bound / bins
        sizes = (edges[1:].ceil() - edges[:-1].ceil()) / bound
        counts = torch.bincount(values * bins // bound, minlength=bins)
        assert abs(chi_square_z(counts, sizes * values.numel())) < 4


def test_normals_have_the_moments_and_the_distribution_of_normals() -> None:
    count = 1 << 18
    values = rng.normal(rng.key(8), (count,)).double()
    assert values.isfinite().all()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)):
        assert abs(float((values**power).mean()) - moment) < 5 * math.sqrt(variance / count)
    exact = torch.special.ndtr(values.sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((exact - steps[:-1]).max(), (steps[1:] - exact).max())
    assert float(distance) * math.sqrt(count) < 1.95  # Kolmogorov and Smirnov: exceeded once in a thousand
    assert abs(float((values[:-1] * values[1:]).mean())) < 5 / math.sqrt(count)


@settings(max_examples=60)
@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
@example(1, 0)
@example(2, 0)
def test_permute_is_a_bijection(size: Any, seed: Any) -> None:
    places = rng.permute(rng.key(seed), torch.arange(size), size)
    assert torch.equal(places.sort().values, torch.arange(size))


def test_permute_takes_any_shape_and_needs_no_storage() -> None:
    size = 2**31 - 1
    index = torch.tensor([[0, 1, 2], [size - 1, size - 2, size // 2]])
    places = rng.permute(rng.key(3), index, size)
    assert places.shape == index.shape
    assert 0 <= places.min() <= places.max() < size
    assert len(set(places.flatten().tolist())) == 6
    assert torch.equal(rng.permute(rng.key(3), index[1, 2], size), places[1, 2])


@pytest.mark.parametrize("size", [0, -1, 2**31])
def test_permute_refuses_sizes_beyond_its_range(size: Any) -> None:
    with pytest.raises(ValueError, match=f"got a permutation of {size} things"):
        rng.permute(rng.key(0), torch.arange(1), size)


@pytest.mark.parametrize("size", [5, 8])
def test_permutations_are_uniform_in_places_and_pairs(size: Any) -> None:
    trials = 4000
    keys = rng.split(rng.key(21), trials)
    places = torch.func.vmap(lambda key: rng.permute(key, torch.arange(size), size))(keys)
    for index in range(size):
        counts = torch.bincount(places[:, index], minlength=size)
        assert abs(chi_square_z(counts, trials / size)) < 4
    pairs = torch.bincount(places[:, 0] * size + places[:, 1], minlength=size * size)
    off = ~torch.eye(size, dtype=torch.bool).flatten()
    assert abs(chi_square_z(pairs[off], trials / off.sum().item())) < 4
    assert pairs[~off].sum() == 0


def test_a_permutation_of_many_does_not_remember_the_order() -> None:
    size = 4096
    places = rng.permute(rng.key(22), torch.arange(size), size)
    steps = (places[1:] - places[:-1]) % size
    counts = torch.bincount(steps * 32 // size, minlength=32)
    assert abs(chi_square_z(counts, (size - 1) / 32)) < 4
    assert (places == torch.arange(size)).sum() < 8


def test_names_give_seeds_that_are_stable_and_distinct() -> None:
    seeds = {rng.name_seed(seed, name) for seed in range(20) for name in ("a", "b", "blocks.0.in", "")}
    assert len(seeds) == 80
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert rng.name_seed(3, "x") == int.from_bytes(hashlib.sha256(b"3/x").digest()[:8], "little") >> 1
