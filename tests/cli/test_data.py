"""From text to shards and tokenizers by the command line, and what is said when it cannot be."""

import io
import json
import sys

import pytest

from craft.cli.data import Prepare


@pytest.fixture
def prose(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text(
        "".join(f"line {number}: the cat sat on {number * number} mats\n" for number in range(400)), encoding="utf-8"
    )
    return path


def test_a_text_is_prepared_shown_and_trained_on(craft, prose, tmp_path, small):
    out = tmp_path / "ready"
    code, shown, err = craft("data", "prepare", prose, "--tokenizer", "bpe:300", "--out", out)
    assert (code, err) == (0, "")
    assert max(len(line) for line in shown.replace(str(tmp_path), "").splitlines()) <= 80
    assert f"craft train subword_1m --data.source {out}" in shown
    assert craft("data", "prepare", prose, "--tokenizer", "bpe:300", "--out", out).code == 0
    told = json.loads(craft("data", "info", out, "--verify", "--json").out)
    assert told["tokenizer"]["size"] == 300
    assert "every file is what the index says" in craft("data", "info", out, "--verify").out
    run = tmp_path / "run"
    code, shown, _ = craft("train", "char_1m", *small, "--data.source", out, "--sample.prompt", "the", "--out", run)
    assert code == 0
    assert "eval/bits_per_byte" in (run / "metrics.jsonl").read_text()
    stored = json.loads((run / "tokenizer.json").read_text())
    assert stored["model"]["type"] == "BPE"


def test_standard_input_is_a_source(craft, prose, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prose.read_bytes())))
    assert craft("data", "prepare", "-", "--out", tmp_path / "a").code == 0
    assert craft("data", "prepare", prose, "--out", tmp_path / "b").code == 0
    prints = [json.loads((tmp_path / name / "index.json").read_text())["fingerprint"] for name in "ab"]
    assert prints[0] == prints[1]


def test_sources_with_weights_are_a_mixture(craft, prose, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"body": f"row {number}"}) + "\n" for number in range(300)), encoding="utf-8")
    flags = ["--weights", "0.75,0.25", "--field", "body", "--out", tmp_path / "out"]
    code, shown, _ = craft("data", "prepare", prose, other, *flags)
    assert code == 0
    assert "75 % of the samples" in shown
    assert "300 documents" in shown


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tokenizer", "gpt"], "got the tokenizer 'gpt'; expected char, byte, bpe:8192"),
        (["--split", "0.9,0.2,0.1"], "got the split '0.9,0.2,0.1', which adds up to 1.2"),
        (["--weights", "a"], "got --weights a; expected numbers such as 0.7,0.3"),
        (["--weights", "1,2"], "for 1 sources; expected one above 0 for each"),
        (["--tokenizer", "bpe:100000"], "the training text has"),
    ],
)
def test_a_wrong_flag_is_one_sentence(craft, prose, tmp_path, flags, problem):
    code, out, err = craft("data", "prepare", prose, "--out", tmp_path / "out", *flags)
    assert (code, out) == (2, "")
    assert problem in err
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_broken_line_is_named_and_left_out_on_request(craft, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one two three four"}\n{"text"\n' + '{"text": "five six seven"}\n' * 20, encoding="utf-8")
    code, _, err = craft("data", "prepare", path, "--out", tmp_path / "out")
    assert code == 2
    assert "a.jsonl, line 2, is broken" in err
    assert "1 broken rows left out" in craft("data", "prepare", path, "--out", tmp_path / "out", "--skip-bad").out


def test_a_place_that_is_taken_or_cannot_be_made_is_named(craft, prose, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch\n", encoding="utf-8")
    code, _, err = craft("data", "prepare", prose, "--out", tmp_path / "mine")
    assert code == 2
    assert "holds other files (thesis.txt ...); name an empty --out" in err
    code, _, err = craft("data", "prepare", prose, "--out", prose)
    assert code == 2
    assert "cannot be made" in err
    assert "got no source" in craft("data", "prepare", "--out", tmp_path / "out").err


def test_what_is_not_prepared_is_said(craft, tmp_path, prose):
    assert "has no index.json; run craft data prepare" in craft("data", "info", tmp_path).err
    assert "expected prepare or info" in craft("data", "prepair", prose).err
    assert "usage: craft data {prepare,info}" in craft("data").out
    assert Prepare(("a",)).tokenizer == "char"


def test_a_tokenizer_is_trained_and_shown(craft, prose, tmp_path):
    path = tmp_path / "t.json"
    assert "300 tokens" in craft("tokenizer", "train", prose, "--tokenizer", "bpe:300", "--out", path).out
    code, _, err = craft("tokenizer", "train", prose, "--tokenizer", "bpe:300", "--out", path)
    assert code == 2
    assert "is there already" in err
    shown = craft("tokenizer", "show", path, "--text", "the cat — 東").out
    assert "it comes back as it was" in shown
    told = json.loads(craft("tokenizer", "show", path, "--text", "the cat", "--json").out)
    assert "".join(told["tokens"]) == "the cat"
    assert told["exact"]
    assert "expected bpe:8192, another size, or char" in craft("tokenizer", "train", prose, "--tokenizer", "byte").err
