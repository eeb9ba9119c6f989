"""The commands that look at runs."""

import importlib.util
import json
import shutil

import pytest


@pytest.fixture
def pair(finished, tmp_path):
    """Return a trained run and a copy that is said to be of another seed."""
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    data = json.loads((other / "config.json").read_text(encoding="utf-8"))
    data["seed"] = data["experiment"]["values"]["seed"] = 1
    (other / "config.json").write_text(json.dumps(data), encoding="utf-8")
    return finished, other


def test_a_table_of_trained_runs(craft, pair):
    code, out, err = craft("compare", *pair)
    assert (code, err) == (0, "")
    assert out.startswith("char_1m: 2 runs of 1 configuration;")
    assert "eval/loss" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_all_there_is_on_standard_output(craft, pair, tmp_path):
    code, out, err = craft("compare", *pair, "--json", "--html", tmp_path / "page.html")
    assert code == 0
    [group] = json.loads(out)["groups"]
    assert (group["n"], group["metrics"]["eval/loss"]["n"]) == (2, 2)
    assert err == f"wrote {tmp_path / 'page.html'}"
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_of_runs_says_what_it_leaves_out(craft, pair):
    silent = pair[1].parent / "silent"
    silent.mkdir()
    shutil.copy(pair[0] / "config.json", silent)
    code, out, err = craft("compare", pair[1].parent)
    assert (code, out.startswith("char_1m: 1 run")) == (0, True)
    assert err == f"left out {silent}: no metrics yet"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_figures(craft, finished, tmp_path):
    code, _, err = craft("compare", finished, "--figures", tmp_path / "figures")
    assert (code, "figures to" in err) == (0, True)
    assert (tmp_path / "figures" / "loss-by-step.svg").is_file()


def test_the_page_of_one_run_lies_in_it(craft, pair, tmp_path):
    run = pair[1]
    assert craft("report", run) == (0, f"{run / 'report.html'}\n", "")
    assert "char_1m: other" in (run / "report.html").read_text(encoding="utf-8")
    assert craft("report", run, "--html", tmp_path / "own.html").out == f"{tmp_path / 'own.html'}\n"
    assert craft("compare", run).code == 0


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("compare",), "got no run"),
        (("compare", "{here}/nowhere"), "which does not exist; give the directory of a run"),
        (("compare", "{here}/empty"), "which holds no run"),
        (("compare", "{run}", "{run}"), "twice"),
        (("compare", "{here}/silent"), "which has no metrics yet"),
        (("compare", "{run}", "--html", "{here}/no/page.html"), "there is no folder"),
        (("compare", "{run}", "--html", "{here}/page"), "expected a file that ends in .html"),
        (("compare", "{run}", "--figure", "x"), "--figures"),
        (("report", "{here}/nowhere"), "which does not exist"),
        (("report", "{here}"), "a folder that holds runs; name one run"),
        (("report",), "The run's directory. (required)"),
    ],
)
def test_what_cannot_be_shown(craft, finished, tmp_path, argv, shown):
    (tmp_path / "empty").mkdir()
    (tmp_path / "silent").mkdir()
    shutil.copytree(finished, tmp_path / "runs" / "one")
    shutil.copy(finished / "config.json", tmp_path / "silent")
    code, out, err = craft(*(word.format(here=tmp_path, run=finished) for word in argv))
    assert (code, out) == (2, "")
    assert shown in err


def test_figures_without_matplotlib_name_the_extra(craft, finished, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else there(name, *rest))
    code, out, err = craft("compare", finished, "--figures", tmp_path / "figures")
    assert (code, out) == (2, "")
    assert "pip install 'craft[report]'" in err


@pytest.mark.parametrize("command", ["compare", "report"])
def test_help(craft, command):
    code, out, _ = craft(command, "--help")
    assert code == 0
    assert "--html" in out
