"""Preparation: the same text gives the same bytes, whatever happened on the way; a damaged result is never used."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from craft.data import DataError, Division, Settings, Text, find, named_tokenizer, open_prepared, part, prepare
from craft.data import preparation as module
from craft.data.division import SPLITS
from craft.data.survey import survey
from craft.store import disk

LINES = [f"line {number} of a text: {'abc'[number % 3] * (number % 17)} é☃\n" for number in range(3000)]


@pytest.fixture
def small(monkeypatch):
    """Make parts and shards small, so that a short text has many."""
    monkeypatch.setattr(part, "LIMIT", 2000)
    monkeypatch.setattr("craft.data.preparation.SHARD", 4000)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(LINES), encoding="utf-8")
    return path


def made(text, out, tokenizer="char", split="0.9,0.05,0.05", by="contiguous", **more):
    return prepare([find(str(text))], Settings(tokenizer, Division(split, by)), out, **more)


def content(directory):
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.suffix in (".tokens", ".ends") or path.name in ("index.json", "tokenizer.json")
    }


def decoded(prepared, split):
    return "".join(prepared.tokenizer.decode(tokens.rows([0], len(tokens))[0].tolist()) for tokens in prepared.tokens[split])


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe:300"])
def test_the_shards_hold_the_text(tmp_path, text, small, tokenizer):
    prepared = made(text, tmp_path / "out", tokenizer)
    whole = "".join(decoded(prepared, split) for split in SPLITS).replace("<|endoftext|>", "")
    assert whole == "".join(LINES)
    assert sum(prepared.total(split, "bytes") for split in SPLITS) == len("".join(LINES).encode())
    assert len(prepared.index["sources"][0]["splits"]["train"]["shards"]) > 3
    assert prepared.total("test", "unknown") == 0


def test_the_same_text_gives_the_same_bytes_on_any_number_of_cores(tmp_path, text, small, monkeypatch):
    made(text, tmp_path / "a", "bpe:300")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    made(text, tmp_path / "b", "bpe:300")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert made(text, tmp_path / "a", "bpe:300").fingerprint == open_prepared(tmp_path / "b").fingerprint


def test_the_vocabulary_is_that_of_the_training_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("ab" * 450 + "ac" * 25 + "ax" * 25, encoding="utf-8")
    prepared = made(path, tmp_path / "out")
    assert prepared.tokenizer.size == 3
    assert [prepared.total(split, "unknown") for split in SPLITS] == [0, 25, 25]


@pytest.mark.parametrize("stop", ["write", "fsync", "rename", "fsync_dir", "open"])
def test_a_full_disk_leaves_what_is_finished_and_the_rest_follows(tmp_path, text, small, stop, monkeypatch):
    whole = content(made(text, tmp_path / "whole").directory)
    for number in range(0, 60, 7):
        seen: list[str] = []

        def fail(name, path, detail, number=number, seen=seen):
            seen.append(name)
            if name == stop and seen.count(stop) == number + 1:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        out = tmp_path / f"{stop}{number}"
        monkeypatch.setattr(disk, "HOOK", fail)
        with contextlib.suppress(OSError):
            made(text, out)
        if not (out / "index.json").is_file():
            with pytest.raises(DataError, match=r"has no index\.json"):
                open_prepared(out)
        monkeypatch.setattr(disk, "HOOK", None)
        assert content(made(text, out).directory) == whole


KILLED = """
import sys
from pathlib import Path
from craft.data import Division, Settings, find, part, prepare
import craft.data.preparation as module
part.LIMIT, module.SHARD = 2000, 4000
prepare([find(sys.argv[1])], Settings("bpe:300"), Path(sys.argv[2]))
"""


def test_a_killed_preparation_goes_on(tmp_path, text, small):
    whole = content(made(text, tmp_path / "whole", "bpe:300").directory)
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(text), str(out)])
    deadline = time.monotonic() + 60
    while not list(out.glob("train-*.tokens")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name for path in out.glob("train-*.tokens")}
    assert kept
    assert content(made(text, out, "bpe:300").directory) == whole


def test_what_was_finished_is_not_encoded_again(tmp_path, text, small, monkeypatch):
    made(text, tmp_path / "whole")
    for path in (tmp_path / "whole").glob("index.json"):
        path.unlink()

    def again(*args, **more):
        raise AssertionError("encoded again")

    monkeypatch.setattr(module, "encode", again)
    assert made(text, tmp_path / "whole").total("train", "tokens") > 0


def test_other_settings_or_another_text_are_refused(tmp_path, text, small):
    made(text, tmp_path / "out")
    with pytest.raises(DataError, match=r"holds other data \(.*tokenizer: 'char' there, 'byte' here\)"):
        made(text, tmp_path / "out", "byte")
    text.write_text("".join(LINES) + "more\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds other data \(.*sources"):
        made(text, tmp_path / "out")


@pytest.mark.parametrize("name", ["train-0-00001.tokens", "test-0-00000.ends", "tokenizer.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_changed_file_is_named(tmp_path, text, small, name, how):
    path = made(text, tmp_path / "out").directory / name
    old = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(old[:-1] if how == "cut" else bytes([old[0] ^ 1]) + old[1:])
    with pytest.raises(DataError, match=rf"{name} is (not what its index says|missing)"):
        open_prepared(tmp_path / "out")
    if how == "flip":  # with the old time of change only a full look finds it
        path.write_bytes(old)
        found = open_prepared(tmp_path / "out")
        state = path.stat()
        path.write_bytes(bytes([old[0] ^ 1]) + old[1:])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        found.verify()
        with pytest.raises(DataError, match="is not what its index says"):
            found.verify(always=True)


def test_a_lossy_tokenizer_is_refused_unless_allowed(tmp_path, text):
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = Tokenizer(models.BPE({"l": 0, "i": 1, "n": 2, "e": 3}, []))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path / "lossy.json"
    model.save(str(path))
    with pytest.raises(DataError, match=r"the tokenizer is lossy: 'line 0 of .* comes back as 'l i n e.*--allow-lossy"):
        made(text, tmp_path / "out", str(path))
    settings = Settings(str(path), Division(), lossy=True)
    assert prepare([find(str(text))], settings, tmp_path / "allowed").total("train", "lossy") > 0


def test_a_source_that_changes_on_the_way_is_refused(tmp_path, text):
    source = find(str(text))
    looked = survey(source)
    text.write_text("".join(LINES) + "one more line\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.txt was changed while it was read: [\d,]+ bytes of text first, then"):
        prepare([source], Settings(), tmp_path / "out", surveys=[looked])
    assert not (tmp_path / "out" / "index.json").exists()


def test_an_empty_split_is_refused(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"text": "a single document"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="split is empty: 1 document of 17 bytes is too little"):
        made(path, tmp_path / "out", by="hash")


def test_bytes_are_those_of_the_text_whatever_marks_the_ends(tmp_path):
    path = tmp_path / "rows.jsonl"
    texts = [f"document number {number} é" for number in range(400)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    found = [made(path, tmp_path / name, name) for name in ("char", "byte", "bpe:300")]
    for split in SPLITS:
        sizes = {(one.total(split, "bytes"), one.total(split, "documents")) for one in found}
        assert len(sizes) == 1
    assert sum(found[0].total(split, "bytes") for split in SPLITS) == len("".join(texts).encode())


def test_a_mixture_keeps_its_weights_and_trains(tmp_path):
    for name, letter in (("a", "a"), ("b", "b")):
        (tmp_path / f"{name}.txt").write_text(f"{letter}\n" * 2000, encoding="utf-8")
    sources = [find(str(tmp_path / f"{name}.txt")) for name in "ab"]
    prepare(sources, Settings("byte"), tmp_path / "out", weights=[3, 1])
    data = Text(source=str(tmp_path / "out")).open(context=16, batch=64, seed=0)
    inputs = np.concatenate([data.batch(step).inputs_BT.numpy() for step in range(64)])
    assert (inputs[:, :2] == ord("b")).any(1).mean() == 0.25
    assert data.epochs(64) == pytest.approx(0.75 * 64 * 64 / ((0.9 * 4000 - 16) // 16), rel=0.01)
    with pytest.raises(DataError, match=r"got the weights \[1\] for 2 sources"):
        prepare(sources, Settings("byte"), tmp_path / "other", weights=[1])


def test_prepared_data_takes_no_other_settings(tmp_path, text):
    made(text, tmp_path / "out", "bpe:300")
    ready = str(tmp_path / "out")
    assert Text(source=ready, tokenizer="bpe:300").open(context=8, batch=2, seed=0).batch(0).inputs_BT.max() < 300
    other = Text(source=ready, tokenizer="byte").open(context=8, batch=2, seed=0)
    assert other.tokenizer.size == 300
    assert other.describe()["tokenizer"] == "bpe:300"
    with pytest.raises(DataError, match=r"got split '0\.8,0\.1,0\.1' for .* which is prepared already"):
        Text(source=ready, split="0.8,0.1,0.1").open(context=8, batch=2, seed=0).batch(0)
    with pytest.raises(DataError, match="made by another tokenizer"):
        Text(source=ready).open(context=8, batch=2, seed=0, tokenizer=named_tokenizer("byte").build(())).batch(0)
