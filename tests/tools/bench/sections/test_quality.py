import numpy as np

from tools.bench.sections import quality


def test_the_text_is_cut_where_craft_cuts_it(tmp_path):
    from craft import data

    path = tmp_path / "text.txt"
    path.write_text("abcdefghij" * 50 + "k" * 7, encoding="utf-8")
    assert quality.tokens(path.read_text(encoding="utf-8"), tmp_path) == 11
    described = data.Text(source=str(path)).open(context=8, batch=2, seed=0).describe()["tokens"]
    for name in ("train", "validation", "test"):
        assert len(np.load(tmp_path / f"{name}.npy")) == described[name]


def test_without_a_text_it_is_not_run(session):
    assert list(quality.run(session, {})) == [("not_run", "no text was given (--text PATH of tiny Shakespeare)")]
