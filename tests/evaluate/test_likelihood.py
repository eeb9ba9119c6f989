"""Log-likelihoods in padded batches and windows are those of one text after another, token by token."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from craft import data
from craft.errors import UsageError
from craft.evaluate.likelihood import Pair, _batches, _Window, encode_pair, likelihoods, opening
from craft.types import Context

CONTEXT, FAMILIES = 12, ("attention", "recurrent", "hybrid")


def naive(task, params, pair):
    """Score token by token: each piece of a context's length after as much as fits before its last token."""
    before, scored = pair.before_N.tolist(), pair.scored_N.tolist()
    ids, log, greedy = before + scored, 0.0, True
    for start in range(len(before), len(ids), task.context):
        end = min(start + task.context, len(ids))
        first = max(0, end - 1 - task.context)
        for place in range(start, end):
            logits = task.model.apply(params, torch.tensor([ids[first:place]]), Context())[0][0, -1]
            log += float(logits.double().log_softmax(-1)[ids[place]])
            greedy &= int(logits.argmax()) == ids[place]
    return log, greedy


def pairs_of(task, sizes, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [
        Pair(*(torch.randint(task.tokenizer.size, (number,), generator=source) for number in (before, scored)))
        for before, scored in sizes
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_many_equal_one_by_one(make_task, engine, family):
    task, params = make_task(family)
    sizes = [(3, 2), (1, 1), (CONTEXT, 1), (CONTEXT - 1, 2), (CONTEXT + 5, 3), (40, 4), (1, CONTEXT), (1, 30), (7, 29), (2, 0)]
    pairs = pairs_of(task, sizes)
    done: list[int] = []
    found = likelihoods(task, params, engine, pairs, done.append)
    for one, pair in zip(found, pairs, strict=True):
        log, greedy = naive(task, params, pair)
        assert one.log == pytest.approx(log, abs=1e-4)
        assert one.greedy == greedy
    assert [one.cut for one in found] == [False, False, False, False, True, True, False, False, True, False]
    assert (found[-1].log, found[-1].greedy) == (0.0, True)
    assert done[-1] == 9 - 2 + 3 + 3
    assert len(done) > 1


def test_greedy_says_whether_the_model_would_write_it(make_task, engine):
    task, params = make_task()
    [pair] = pairs_of(task, [(4, 0)])
    ids = pair.before_N
    for _ in range(3):
        ids = torch.cat((ids, task.model.apply(params, ids[None], Context())[0][0, -1].argmax()[None]))
    other = ids[4:].clone()
    other[-1] = (other[-1] + 1) % task.tokenizer.size
    found = likelihoods(task, params, engine, [Pair(ids[:4], ids[4:]), Pair(ids[:4], other)])
    assert [one.greedy for one in found] == [True, False]


@given(st.lists(st.integers(2, 20), min_size=1, max_size=30), st.integers(1, 60))
def test_batches_hold_each_window_once_and_no_more_than_fits(lengths, tokens):
    windows = [_Window(owner, torch.zeros(length), 1) for owner, length in enumerate(lengths)]
    groups = list(_batches(windows, tokens))
    assert sorted(window.owner for group in groups for window in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(window.ids_N) for window in group) <= tokens


def test_a_pair_of_characters_is_cut_at_the_seam(make_task):
    tokenizer = make_task()[0].tokenizer
    pair = encode_pair(tokenizer, "the cat ", "sat")
    assert (tokenizer.decode(pair.before_N), tokenizer.decode(pair.scored_N)) == ("the cat ", "sat")
    empty = encode_pair(tokenizer, "", "sat")
    assert (tokenizer.decode(empty.before_N), tokenizer.decode(empty.scored_N)) == ("\n", "sat")


class Pairwise(data.ByteTokenizer):
    """Two letters are one token where they are equal: a vocabulary whose tokens reach over seams."""

    def encode(self, text, *, unknown=False):
        ids, place = [], 0
        while place < len(text):
            double = text[place : place + 2] == 2 * text[place]
            ids.append(ord(text[place]) % 32 + 32 * double)
            place += 1 + double
        return torch.tensor(ids, dtype=torch.int64)


def test_a_token_over_the_seam_is_scored_whole():
    pair = encode_pair(Pairwise(), "ab", "bc")
    assert (pair.before_N.tolist(), pair.scored_N.tolist()) == ([1], [34, 3])
    assert encode_pair(Pairwise(), "ab", "ac").scored_N.tolist() == [1, 3]
    alone = encode_pair(Pairwise(), "a", "ab")
    assert (alone.before_N.tolist(), alone.scored_N.tolist()) == ([10], [33, 2])  # after a line end


BPE = data.BPE(280).build(["the cat sat on the mat and ran far away from it"] * 9)
WORDS = st.text("the casonmdrfwyi ", max_size=12)


@given(WORDS.filter(str.strip), WORDS)
def test_subwords_are_those_of_both_together(before, scored):
    pair = encode_pair(BPE, before, scored)
    whole = BPE.encode(before + scored)
    kept = pair.before_N if len(pair.scored_N) < len(whole) else whole[:0]  # else all of it, after the end of a document
    assert torch.cat((kept, pair.scored_N)).tolist() == whole.tolist()
    assert BPE.decode(pair.scored_N).endswith(scored)
    assert before.startswith(BPE.decode(kept))


def test_what_a_text_begins_after():
    class Ending(Pairwise):
        end = 7

    assert opening(Ending()).tolist() == [7]
    assert opening(data.ByteTokenizer()).tolist() == [10]
    with pytest.raises(UsageError, match="scored after a line end, which this model does not know"):
        opening(data.CharacterTokenizer("ab"))


def test_no_model_of_text(make_task, engine):
    task, params = make_task()
    with pytest.raises(UsageError, match="has no model of text"):
        likelihoods(attrs.evolve(task, model=None), params, engine, [])
    assert likelihoods(task, params, engine, []) == []
