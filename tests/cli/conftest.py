"""The command line in this process: what it prints and the code it exits with."""

import sys
from typing import NamedTuple

import pytest

from craft.cli.entry import _dispatch
from craft.cli.guard import guarded

PROSE = "".join(f"the {'cat' if n % 3 else 'dog'} sat on {n * n} mats; a dog ran{' far' * (n % 4)} away.\n" for n in range(60))
_FLAGS = """
--lr 0.02 --steps 4 --batch 4 --context 16 --model.width 16 --model.depth 1 --sample.tokens 8
--device cpu --compile none --precision fp32 --threads 1 --track.wandb off
"""
SMALL = _FLAGS.split()


class Ended(NamedTuple):
    """How a command ended; `err` is one line of words, without the frames that some messages stand in."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def private_import_path(monkeypatch):
    """Looking for experiments extends the import path: not beyond a test."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def craft(capsys):
    """Run `craft ARGS`."""

    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            guarded(_dispatch, [str(word) for word in argv])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        words = " ".join(shown.err.translate({ord(mark): " " for mark in "│╭╮╰╯─"}).split())
        return Ended(int(ended.value.code or 0), shown.out, words)

    return run


@pytest.fixture
def small(text):
    """Return the flags of a run that takes a moment."""
    return [*SMALL, "--data.source", str(text)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Train one run that the tests only read."""
    place = tmp_path_factory.mktemp("finished")
    source = place / "text.txt"
    source.write_text(PROSE, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        guarded(_dispatch, ["train", "char_1m", *SMALL, "--data.source", str(source), "--out", str(place / "run")])
    assert not ended.value.code
    return place / "run"
