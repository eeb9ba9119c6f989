"""Files of every format give the same documents, and a broken one is named by file and line."""

import gzip
import json

import pytest

from craft.data import DataError, Reading, find
from craft.data.formats import read_file

TEXTS = ["first\ndocument\n", "second: é☃", "third"]


def written(path, texts=TEXTS, field="text", pack=None):
    if path.name.split(".")[1] == "jsonl":
        content = "".join(json.dumps({field: text, "other": 1}) + "\n" for text in texts).encode()
    else:
        content = "\n<end>\n".join(texts).encode()
    path.write_bytes(pack(content) if pack else content)
    return path


def zstd(content: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(content))


def texts(path, **options) -> list[str]:
    found, current = list[str](), ""
    for part in read_file(path, Reading(**options)):
        current += part.text
        if part.ends:
            found, current = [*found, current], ""
    assert not current
    return found


@pytest.mark.parametrize(("suffix", "pack"), [("", None), (".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize(("name", "options"), [("a.jsonl", {}), ("a.txt", {"separator": "<end>"})])
def test_packed_or_not_gives_the_same_documents(tmp_path, name, options, suffix, pack):
    found = texts(written(tmp_path / f"{name}{suffix}", pack=pack), **options)
    assert [text.rstrip("\n") for text in found] == [text.rstrip("\n") for text in TEXTS]


def test_packing_is_told_by_content_not_by_name(tmp_path):
    assert texts(written(tmp_path / "a.txt", ["hello"], pack=gzip.compress)) == ["hello"]


def test_a_table_gives_its_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"body": TEXTS, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", field="body") == TEXTS
    with pytest.raises(DataError, match="lacks the column 'text'; it has body, n"):
        texts(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"b\.parquet is no Parquet file that can be read"):
        texts(tmp_path / "b.parquet")


def test_a_saved_dataset_gives_its_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "set"))
    assert [part.text for part in find(f"hf:{tmp_path / 'set'}").parts()] == TEXTS
    with pytest.raises(DataError, match="has no text 'body'; it has text"):
        list(find(f"hf:{tmp_path / 'set'}", Reading(field="body")).parts())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "cut', r"line 2, is broken: Unterminated string"),
        (b'{"txt": "x"}', r"line 2, lacks the field 'text' \(it has txt\)"),
        (b'["x"]', r"line 2, lacks the field 'text' \(it is a list\)"),
        (b'{"text": 5}', r"line 2, has a field 'text' that is no text: 5"),
        (b'{"text": "\xff"}', r"line 2, is broken: 'utf-8' codec"),
    ],
)
def test_a_broken_line_is_named_or_counted(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n' + line + b'\n\n{"text": "two"}\n')
    with pytest.raises(DataError, match=rf"a\.jsonl, {problem}.*; mend it, name another --field, or .* --skip-bad"):
        texts(path)
    reading = Reading(skip_bad=True)
    assert [part.text for part in read_file(path, reading)] == ["one", "two"]
    assert reading.skipped == 1


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_a_broken_gzip_is_named(tmp_path, cut):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some words that are packed\n" * 50)[:cut])
    with pytest.raises(DataError, match=r"a\.txt\.gz is a broken gzip file"):
        texts(path)


def test_the_place_of_a_bad_byte_is_that_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("craft.data.formats._PIECE", 7)
    path = tmp_path / "a.txt"
    content = "line\nné☃\nmore lines\nlast ".encode()
    path.write_bytes(content + b"\xe2\x98" + b"x")
    with pytest.raises(DataError, match=rf"byte 0xe2 at offset {len(content)} \(line 4\)"):
        texts(path)
    path.write_bytes(content)
    assert texts(path) == [content.decode()]
