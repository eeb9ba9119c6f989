"""Batches of text: each window once an epoch, each held-out target once, and all of it a function of (seed, step)."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import tree
from craft.data import Characters, DataError, Text, UnknownCharacters, load_tokenizer, windows
from craft.step import Data
from craft.types import Tree

SMALL = settings(max_examples=15, deadline=None)  # one permutation takes 10 ms, and every epoch asks for one


def letters(number: int) -> str:
    """Return characters that are all different, so that each tells its place."""
    return "".join(chr(0x4E00 + i) for i in range(number))


@pytest.fixture
def opened(tmp_path):
    """Open a text that is written to a file."""

    def start(text="the cat sat on the mat\n" * 60, *, context=8, batch=4, seed=0, tokenizer=None, **config):
        path = tmp_path / "text.txt"
        path.write_bytes(text.encode())
        return Text(source=str(path), **config).open(context=context, batch=batch, seed=seed, tokenizer=tokenizer)

    return start


def same(first: Tree, second: Tree) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tree.leaves(first), tree.leaves(second), strict=True))


@given(size=st.integers(2, 400), context=st.integers(1, 60), seed=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 9))
@SMALL
def test_each_window_comes_once_an_epoch(size, context, seed, epoch):
    context = min(context, size - 1)
    number = windows.count(size, context)
    start_N = windows.shuffled(size, context=context, seed=seed)(epoch * number, number)
    ordered_N = start_N.sort().values
    assert torch.equal(ordered_N.diff(), torch.full((number - 1,), context))
    assert ordered_N[0] >= 0
    assert ordered_N[-1] + context <= size - 1


@given(size=st.integers(60, 200), context=st.integers(1, 4), step=st.integers(0, 6), batch=st.integers(1, 30))
@SMALL
def test_any_piece_equals_the_sequence(size, context, step, batch):
    whole_N = windows.shuffled(size, context=context, seed=3)(0, (step + 1) * batch)
    alone_B = windows.shuffled(size, context=context, seed=3)(step * batch, batch)
    assert torch.equal(alone_B, whole_N[step * batch :])


def test_an_epoch_of_several_blocks_is_a_permutation(monkeypatch):
    whole_N = windows.shuffled(401, context=4, seed=1)(0, 250)
    monkeypatch.setattr(windows, "_PLACES", 7)
    assert torch.equal(windows.shuffled(401, context=4, seed=1)(0, 250), whole_N)


def test_every_token_is_reached():
    size, context = 25, 8
    number, starts = windows.count(size, context), windows.shuffled(size, context=context, seed=0)
    start_N = starts(0, number * 60)
    targets = {place for start in start_N.tolist() for place in range(start + 1, start + context + 1)}
    inputs = {place for start in start_N.tolist() for place in range(start, start + context)}
    assert targets == set(range(1, size))
    assert inputs == set(range(size - 1))


def test_offsets_are_even_over_their_range():
    size, context = 20, 8
    starts = windows.shuffled(size, context=context, seed=5)
    counts = starts(0, 240).bincount(minlength=12)
    assert len(counts) == 12
    assert counts.min() > 5
    assert counts.max() < 40


def test_batches_hold_the_text_and_what_follows(opened):
    text = letters(500)
    data = opened(text, context=16, batch=6)
    for step in range(20):
        batch = data.batch(step)
        assert batch.layout == ()
        assert [leaf.dtype for leaf in batch[:4]] == [torch.int64, torch.int64, torch.float32, torch.int64]
        assert all(leaf.is_contiguous() for leaf in batch[:4])
        assert torch.equal(batch.weights_BT, torch.ones(6, 16))
        assert batch.sample_B.tolist() == list(range(step * 6, step * 6 + 6))
        for inputs, targets in zip(batch.inputs_BT, batch.targets_BT, strict=True):
            piece = data.tokenizer.decode(inputs) + data.tokenizer.decode(targets[-1:])
            assert piece in text[:450]
            assert torch.equal(inputs[1:], targets[:-1])


def test_a_batch_is_a_function_of_the_step(opened):
    data = opened()
    seen = [data.batch(step) for step in range(70)]
    again = opened()
    for step in (69, 3, 0, 35, 3):
        assert same(again.batch(step), seen[step])
    assert same(data.batch(0), seen[0])


def test_a_batch_is_the_callers_own(opened):
    data = opened()
    batch = data.batch(0)
    for leaf in batch[:4]:
        leaf.zero_()
    assert same(data.batch(0), opened().batch(0))


def test_seeds_differ_and_repeat(opened):
    assert same(opened(seed=1).batch(5), opened(seed=1).batch(5))
    assert not torch.equal(opened(seed=1).batch(5).inputs_BT, opened(seed=2).batch(5).inputs_BT)


@pytest.mark.parametrize("batch", [1, 3, 12, 100])
def test_another_batch_size_sees_the_same_samples(opened, batch):
    first, second = opened(batch=4), opened(batch=batch)
    reference = tree.map(lambda *parts: torch.cat(parts), *[first.batch(step) for step in range(75)])
    found = tree.map(lambda *parts: torch.cat(parts), *[second.batch(step) for step in range(300 // batch)])
    assert same(found, reference)


@pytest.mark.parametrize("batch", [1, 4, 50])
@pytest.mark.parametrize("context", [1, 7, 24])
def test_a_split_is_covered_once_and_in_order(opened, batch, context):
    text = letters(1000)
    places = {"train": (0, 800), "validation": (800, 900), "test": (900, 1000)}
    tokenizer = Characters().build(text)
    data = opened(text, context=context, batch=batch, split="0.8,0.1,0.1", tokenizer=tokenizer)
    for name, (first, last) in places.items():
        targets, inputs = [], []
        for number, piece in enumerate(data.split(name)):
            assert piece.inputs_BT.shape == piece.targets_BT.shape == piece.weights_BT.shape == (batch, context)
            assert piece.sample_B.tolist() == list(range(number * batch, (number + 1) * batch))
            targets += piece.targets_BT[piece.weights_BT > 0].tolist()
            inputs += piece.inputs_BT[piece.weights_BT > 0].tolist()
        assert tokenizer.decode(targets) == text[first + 1 : last]
        assert tokenizer.decode(inputs) == text[first : last - 1]
    assert same(list(data.split("test")), list(data.split("test")))


def test_the_vocabulary_is_that_of_the_training_text(opened):
    data = opened("ab" * 450 + "ac" * 25 + "ax" * 25)
    assert data.tokenizer.to_json()["characters"] == "ab"
    described = data.describe()
    assert described["unknown"] == {"train": 0, "validation": 25, "test": 25}
    assert described["tokens"] == {"train": 900, "validation": 50, "test": 50}
    assert described["characters"] == 1000
    assert described["vocabulary"] == 3
    assert described["name"] == "text.txt"
    assert described["files"] == 1
    assert described["fingerprint"] == data.fingerprint
    assert set(torch.cat([batch.targets_BT for batch in data.split("test")]).flatten().tolist()) == {0, 1}


def test_bytes_never_cut_a_character(opened):
    data = opened("é☃" * 200)
    data = Text(source=data.config.source, tokenizer="byte").open(context=4, batch=2, seed=0)
    for name in ("train", "validation", "test"):
        ids = [int(next(iter(data.split(name))).inputs_BT[0, 0])]
        for batch in data.split(name):
            ids += batch.targets_BT[batch.weights_BT > 0].tolist()
        assert "\ufffd" not in data.tokenizer.decode(ids)
    assert data.describe()["unknown"] == {"train": 0, "validation": 0, "test": 0}


def test_nothing_is_read_where_the_tokenizer_is_given():
    tokenizer = load_tokenizer({"kind": "characters", "characters": "abc"})
    data = Text(source="/nowhere").open(context=8, batch=2, seed=0, tokenizer=tokenizer)
    assert data.tokenizer is tokenizer
    assert data.tokens == 16
    for ask in (lambda: data.fingerprint, lambda: data.batch(0), lambda: data.split("test"), data.describe):
        with pytest.raises(DataError, match="neither stdlib"):
            ask()


def test_a_given_tokenizer_must_know_the_training_text(opened):
    data = opened("abcd" * 100, tokenizer=Characters().build("abc"))
    with pytest.raises(UnknownCharacters, match=r"'d' \(90\)"):
        data.batch(0)


def test_the_fingerprint_covers_text_splits_and_tokenizer(opened):
    text = "the cat sat on the mat\n" * 60
    base = opened(text).fingerprint
    assert base == opened(text, seed=9, batch=7, context=5).fingerprint
    others = [opened(text, split="0.88,0.06,0.06"), opened(text, tokenizer=Characters().build(text + "xyz"))]
    others.append(Text(source=others[0].config.source, tokenizer="byte").open(context=8, batch=4, seed=0))
    prints = {base, *(data.fingerprint for data in others), opened(text.replace("cat", "act")).fingerprint}
    assert len(prints) == 5


def test_a_text_is_long_enough_or_says_what_fits(opened):
    text = "ab" * 500
    assert next(iter(opened(text, context=49).split("test"))).inputs_BT.shape == (4, 49)
    opened(text, context=49).batch(0)
    for ask in ("fingerprint", "tokenizer"):
        with pytest.raises(
            DataError, match=r"1000 tokens \(900 for train, 50 for validation, 50 for test\).* needs 51 in each; the"
        ):
            getattr(opened(text, context=50), ask)
    with pytest.raises(DataError, match="the largest context that fits is 49: "):
        opened(text, context=64).batch(0)
    with pytest.raises(DataError, match="no context fits: "):
        opened("abcd" * 5, context=1).batch(0)
    with pytest.raises(DataError, match="the validation split is empty: 1 document of 3 bytes"):
        opened("abc", context=1).batch(0)


@pytest.mark.parametrize("split", ["0.9,0.1", "1,0,0", "0.5,0.5,0.5", "a,b,c", "0.9,0.2,-0.1", "nan,0.5,0.5"])
def test_a_split_is_three_shares(split):
    with pytest.raises(DataError, match=f"got the split '{split}'"):
        Text(split=split)


def test_wrong_sizes_are_refused(opened):
    for name in ("context", "batch"):
        with pytest.raises(DataError, match=f"got {name}=0; expected at least 1"):
            opened(**{name: 0})
    with pytest.raises(DataError, match="got step=-1; expected 0 or more"):
        opened().batch(-1)
    with pytest.raises(DataError, match="got the split 'valid'; expected train, validation, test"):
        opened().split("valid")


def test_many_characters_take_wider_ids(opened):
    data = opened(letters(400) * 3, context=4)
    assert data.prepared.index["dtype"] == "<u2"
    assert data.batch(0).inputs_BT.max() > 255


PRINT = """
import sys
from craft.data import Text
data = Text(source=sys.argv[1]).open(context=8, batch=4, seed=1)
print(data.fingerprint, data.batch(7).inputs_BT.tolist(), [b.targets_BT.tolist() for b in data.split("test")])
"""


def test_no_hash_seed_changes_anything(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(f"{name} zebra quick fox jumps {name}\n" * 40, encoding="utf-8")
    printed = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "-c", PRINT, str(tmp_path)]
        printed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1
    assert len(printed.pop()) > 100


def test_the_standard_library_opens_as_it_is():
    data: Data = Text().open(context=256, batch=16, seed=0)
    assert data.tokens == 4096
    assert data.batch(10**6).inputs_BT.max() < 101
    assert len(data.fingerprint) == 64


def test_a_batch_of_more_than_an_epoch_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("the cat sat on the mat\n" * 50, encoding="utf-8")
    data = Text(source=str(path)).open(context=16, batch=999_999_999, seed=0)
    with pytest.raises(DataError, match=r"got a batch of 999999999 samples, but .* has 63 of 16 tokens to train on"):
        data.batch(0)
