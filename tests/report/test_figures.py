"""Figures for a paper."""

import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest

from craft.errors import UsageError
from craft.report import check_figures, write_figures

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib, of the extra `report`, is not installed"
)
SVG = "{http://www.w3.org/2000/svg}"


def words(path):
    """Return the text of an SVG: it is written as text, for editors and for searching."""
    return {"".join(node.itertext()).strip() for node in ElementTree.parse(path).iter(f"{SVG}text")}


@needs_matplotlib
def test_each_figure_is_svg_and_png(make, seen, tmp_path):
    flops = {"model": {"flops_per_step": 1e9}}
    runs = [make(f"s{n}", seed=n, **flops) for n in range(3)]
    folder = tmp_path / "deep" / "figures"
    written = write_figures(seen(*runs, make("other", lr=0.04, **flops)), folder)
    assert {path.stem for path in written} == {
        "loss-by-step", "loss-by-tokens", "loss-by-flops", "loss-by-seconds", "last-values",
        "lr", "grad-norm", "tokens-per-second", "memory-mb",
    }  # fmt: skip
    assert sorted(folder.iterdir()) == sorted(written)
    assert {path.suffix for path in written} == {".svg", ".png"}
    assert (folder / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert {"updates", "loss (nats per token)", "lr=0.02", "lr=0.04"} <= words(folder / "loss-by-step.svg")
    assert "wall time (seconds)" in words(folder / "loss-by-seconds.svg")
    assert {"held-out loss (nats per token)", "lr=0.04"} <= words(folder / "last-values.svg")


@needs_matplotlib
def test_the_same_runs_give_the_same_bytes(make, seen, tmp_path):
    found = seen(make("a"))
    first, second = ([path.read_bytes() for path in write_figures(found, tmp_path / name)] for name in "12")
    assert first == second


@needs_matplotlib
def test_bare_runs_many_runs_and_odd_names(make, seen, tmp_path):
    bare = make("bare", upto=2, held=False, tokens=0)
    (bare / "timings.jsonl").unlink()
    runs = [make(f"r{n}", lr=n / 100, metrics={"eval/$x_{": 1.0}, **{"data.source": "a $dollar$ {"}) for n in range(8)]
    written = write_figures(seen(bare, *runs), tmp_path / "figures")
    assert "loss-by-step" in {path.stem for path in written}
    assert not list((tmp_path / "figures").glob(".tmp*"))


@needs_matplotlib
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("runs", [2, 8])
def test_long_labels_leave_room_for_the_lines(make, seen, tmp_path, runs):
    long = "/a/very/long/path " * 6
    made = [make(f"r{n}", **{"data.source": long + str(n), "model.width": n, "lr": n / 10}) for n in range(runs)]
    write_figures(seen(*made), tmp_path / "figures")


@needs_matplotlib
def test_a_folder_that_cannot_be(make, seen, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="which cannot be made"):
        write_figures(seen(make("a")), tmp_path / "file")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"matplotlib is not installed; install it: pip install 'craft\[report\]'"):
        check_figures(tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
