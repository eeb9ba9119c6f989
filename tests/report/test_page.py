"""The page as a file: whole, without a network, safe against what runs have written."""

import json
import re

import pytest

from craft import report
from craft.errors import UsageError
from craft.report.page import page

EVIL = "</script><script>document.documentElement.dataset.pwned=1</script><!--<script>"


def test_a_page_of_one_run_and_of_many(make, seen):
    one = page(seen(make("a")))
    assert "<title>char_1m: a</title>" in one
    assert "One run, finished after 40 updates." in one
    many = page(seen(make("b"), make("c", seed=1), make("d", lr=0.04)))
    assert "3 runs of 2 configurations." in many
    assert "at 20 of 40 updates" in page(seen(make("e", upto=20)))


def test_the_page_asks_no_network_and_names_all_that_it_runs(make, seen):
    text = page(seen(make("a")))
    assert set(re.findall(r"\bhttps?://[^\"' )]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=|@import|url\((?!#)", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_the_same_runs_give_the_same_bytes(make, tmp_path):
    run = make("a")
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for path in pages:
        report.write_page([run], path)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_runs_say_cannot_leave_the_data(make, seen):
    text = page(seen(make("a", samples=(EVIL,), metrics={f"eval/{EVIL}": 1.0}, **{"data.source": EVIL})))
    assert text.count("</script>") == 3
    assert "<!--" not in text
    inline = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert inline
    assert EVIL in json.loads(inline[1])["subjects"]


def test_text_that_is_no_unicode_is_written_anyway(make, tmp_path):
    run = make("a")
    config = run / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"stdlib"', r'"\ud800"'), encoding="utf-8")
    report.write_page([run], tmp_path / "page.html")
    assert b"\\ud800" in (tmp_path / "page.html").read_bytes()


def test_targets_that_cannot_be(make, tmp_path, monkeypatch):
    run = make("a")
    (tmp_path / "folder.html").mkdir()
    for path, words in (
        (tmp_path / "page.txt", r"expected a file that ends in \.html"),
        (run / "config.json", r"expected a file that ends in \.html"),
        (tmp_path / "folder.html", "which is a directory"),
        (tmp_path / "nowhere" / "page.html", "there is no folder"),
    ):
        with pytest.raises(UsageError, match=words):
            report.write_page([run], path)

    def fails(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("craft.store.write", fails)
    with pytest.raises(UsageError, match="cannot be written \\(No space left on device\\)"):
        report.write_page([run], tmp_path / "page.html")
