"""Tokenizers: what goes in comes out, and nothing is dropped."""

import json
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from craft.data import (
    BPE,
    Bytes,
    Characters,
    CharacterTokenizer,
    DataError,
    UnknownCharacters,
    load_tokenizer,
    named_tokenizer,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_characters_round_trip(text):
    tokenizer = Characters().build(text)
    ids_N = tokenizer.encode(text)
    assert ids_N.dtype == torch.int64
    assert ids_N.shape == (len(text),)
    assert tokenizer.decode(ids_N) == text
    assert tokenizer.decode(ids_N.tolist()) == text
    assert tokenizer.unknown(text) == {}


@given(TEXT)
def test_bytes_round_trip(text):
    tokenizer = Bytes().build("")
    ids_N = tokenizer.encode(text)
    assert ids_N.tolist() == list(text.encode())
    assert tokenizer.decode(ids_N) == text


@given(TEXT, TEXT)
def test_ids_equal_a_naive_dictionary(training, text):
    tokenizer = Characters().build(training)
    table = {character: i + 1 for i, character in enumerate(sorted(set(training) - {"\ufffd"}))}
    assert tokenizer.encode(text, unknown=True).tolist() == [table.get(character, 0) for character in text]
    assert tokenizer.size == len(table) + 1


@given(TEXT)
def test_json_gives_the_same_tokenizer(text):
    for tokenizer in (Characters().build(text), Bytes().build(text)):
        stored = json.loads(json.dumps(tokenizer.to_json()))
        assert load_tokenizer(stored) == tokenizer


@given(TEXT, st.lists(st.integers(1, 5), max_size=40), st.sampled_from([Characters(), Bytes()]))
def test_a_stream_gives_the_text_in_whole_characters(text, sizes, kind):
    tokenizer = kind.build(text)
    ids, stream, pieces = tokenizer.encode(text).tolist(), tokenizer.stream(), []
    for size in sizes:
        pieces.append(stream.push(ids[:size]))
        ids = ids[size:]
    pieces += [stream.push(ids), stream.finish()]
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


def test_a_stream_that_ends_within_a_character_says_so():
    stream = Bytes().build("").stream()
    assert stream.push([0xE2, 0x98]) == ""
    assert stream.finish() == "\ufffd"


def test_bytes_that_are_not_utf8_are_replaced():
    assert Bytes().build("").decode([104, 255, 105]) == "h\ufffdi"


def test_unknown_characters_are_listed_with_counts():
    tokenizer = Characters().build("abc")
    with pytest.raises(
        UnknownCharacters,
        match=r"lacks: '☃' \(2\), '\\n' \(1\); expected only those of the text that the tokenizer was made of",
    ) as info:
        tokenizer.encode("a☃b☃\n")
    assert info.value.counts == {"☃": 2, "\n": 1}
    assert tokenizer.encode("a☃b", unknown=True).tolist() == [1, 0, 2]
    assert tokenizer.decode([1, 0, 2]) == "a\ufffdb"


def test_at_most_twenty_unknown_characters_are_shown():
    with pytest.raises(UnknownCharacters) as info:
        Characters().build("a").encode("".join(map(chr, range(0x400, 0x400 + 25))))
    assert str(info.value).count("(1)") == 20
    assert " and 5 more;" in str(info.value)


@pytest.mark.parametrize("kind", [Characters(), Bytes()])
@pytest.mark.parametrize("place", [0, 5, 2**20 + 3])
def test_a_lone_surrogate_is_named_with_its_place(kind, place):
    tokenizer = kind.build("ab")
    with pytest.raises(DataError, match=rf"lone surrogate U\+D800 at character {place},"):
        tokenizer.encode("a" * place + "\ud800" + "b")


def test_a_vocabulary_takes_no_surrogate():
    with pytest.raises(DataError, match=r"U\+DC80"):
        Characters().build("ab\udc80")


@pytest.mark.parametrize(("kind", "size"), [(Characters(), 4), (Bytes(), 256)])
@pytest.mark.parametrize("wrong", [-1, 256])
def test_an_id_out_of_range_is_named(kind, size, wrong):
    with pytest.raises(DataError, match=rf"id {wrong} at position 1; expected 0 to {size - 1}"):
        kind.build("abc").decode([1, wrong])


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"kind": "words"},
        {"kind": "bytes", "size": 3},
        {"kind": "characters"},
        {"kind": "characters", "characters": ["a"]},
        {"kind": "characters", "characters": "ab", "more": 1},
        {"kind": "characters", "characters": "ba"},
        {"kind": "characters", "characters": "aa"},
        {"kind": "characters", "characters": "a\ufffd"},
        ["bytes"],
    ],
)
def test_a_wrong_description_is_refused(stored):
    with pytest.raises(DataError, match=r"got the .*; expected "):
        load_tokenizer(stored)


def test_nothing_is_encoded_to_nothing():
    for kind in (Characters(), Bytes()):
        tokenizer = kind.build("")
        assert tokenizer.encode("").shape == (0,)
        assert tokenizer.decode([]) == ""
        assert tokenizer.decode(torch.zeros(0)) == ""


def test_nine_million_characters_take_well_under_a_second():
    text = "the quick brown fox; " * 430_000
    tokenizer = CharacterTokenizer("".join(sorted(set(text))))
    start = time.process_time()
    ids_N = tokenizer.encode(text)
    assert time.process_time() - start < 1
    assert len(ids_N) == len(text)


def test_the_replacement_character_is_the_id_0():
    tokenizer = Characters().build("a\ufffdb")
    assert tokenizer.characters == "ab"
    assert tokenizer.encode("\ufffda").tolist() == [0, 1]
    assert tokenizer.unknown("\ufffda") == {}


def test_units_name_a_token():
    assert Characters().build("a").unit == "character"
    assert Bytes().build("a").unit == "byte"


@pytest.fixture(scope="module")
def subwords():
    """Train a small vocabulary."""
    return BPE(320).build([f"the cat sat on mat number {number}, naïvely\n" for number in range(200)])


@given(text=TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_from_subwords(subwords, text):
    ids_N = subwords.encode(text)
    assert ids_N.dtype == torch.int64
    assert subwords.decode(ids_N) == text
    stream = subwords.stream()
    assert "".join([*(stream.push([i]) for i in ids_N.tolist()), stream.finish()]) == text


def test_a_special_token_in_a_text_is_text(subwords):
    ids = subwords.encode("a<|endoftext|>b").tolist()
    assert subwords.end is not None
    assert subwords.end not in ids
    assert subwords.decode(ids) == "a<|endoftext|>b"


def test_subwords_are_trained_the_same_twice_and_stored_as_others_read_them(subwords, tmp_path):
    texts = [f"the cat sat on mat number {number}, naïvely\n" for number in range(200)]
    assert BPE(320).build(iter(texts)).to_json() == subwords.to_json()
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(subwords.to_json()), encoding="utf-8")
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(path)).encode("the cat", add_special_tokens=False).ids == subwords.encode("the cat").tolist()
    assert named_tokenizer(str(path)).build(()).to_json() == subwords.to_json()
    assert load_tokenizer(subwords.to_json()).size == subwords.size == 320


def test_a_vocabulary_fits_its_text_and_its_alphabet():
    with pytest.raises(DataError, match="needs 257 for the bytes and an end"):
        BPE(256)
    with pytest.raises(DataError, match=r"the training text has \d+ at most: take bpe:\d+"):
        BPE(5000).build(["hello"])


@pytest.mark.parametrize("name", ["chars", "bpe", "bpe:", "bpe:x", "", "gpt2"])
def test_a_word_that_names_no_tokenizer_is_refused(name):
    with pytest.raises(DataError, match=f"got the tokenizer '{name}'; expected char, byte, bpe:8192"):
        named_tokenizer(name)


def test_a_file_that_holds_no_tokenizer_is_named(tmp_path):
    for content, problem in (
        (b"{", "which is no JSON"),
        (b"{}", "got the tokenizer {}"),
        (b'{"model": {}, "added_tokens": []}', "cannot be read"),
    ):
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(DataError, match=problem):
            named_tokenizer(str(tmp_path / "t.json")).build(()).encode("a")
    with pytest.raises(DataError, match="could not read the tokenizer"):
        named_tokenizer(str(tmp_path / "none.json")).build(())


def test_a_sentencepiece_model_is_read(tmp_path):
    trainer = pytest.importorskip("sentencepiece")
    trainer.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog ran"] * 50),
        model_prefix=str(tmp_path / "m"),
        vocab_size=18,
        minloglevel=2,
    )
    tokenizer = named_tokenizer(str(tmp_path / "m.model")).build(())
    ids = tokenizer.encode("the cat ran").tolist()
    assert tokenizer.decode(ids) == "the cat ran"
    assert load_tokenizer(tokenizer.to_json()).encode("the cat ran").tolist() == ids
    stream = tokenizer.stream()
    assert "".join([*(stream.push([i]) for i in ids), stream.finish()]) == "the cat ran"
