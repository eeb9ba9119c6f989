"""What every test stands on: caches of its own, one thread, no dashboard, and a run small enough to train in a moment."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from craft import data, optim
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.run import Checkpoints, Evaluations, Run, Samples, Track
from experiments.char_1m import Char1M

PROSE = "the cat sat on the mat; a dog ran far away.\n"


@pytest.fixture(scope="session", autouse=True)
def machine(tmp_path_factory):
    """Keep the user's caches and dashboards out; what is compiled is shared by the tests of one session."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        patch.delenv(name, raising=False)
    patch.setenv("WANDB_MODE", "disabled")
    patch.setattr("craft.engine.program._OTHERWISE", False)  # a compiler of ours that fails is a failure
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def one_thread():
    """Start each test on one thread: a run may have set another number."""
    torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path):
    """Write a text of about 2.6 kB."""
    path = tmp_path / "text.txt"
    path.write_text(PROSE * 60, encoding="utf-8")
    return path


@pytest.fixture
def tiny(text):
    """Make an experiment of eight updates with all that can go wrong in a resumed run: dropout, parts, an average."""

    def make(**changes: Any) -> Char1M:
        model = Sequence(width=16, depth=1, dropout=0.2, pattern=(Attention(heads=2), FeedForward(expand=2.0)))
        values: dict[str, Any] = {"lr": 0.02, "steps": 8, "batch": 4, "context": 16, "accumulate": 2, "model": model}
        values |= {"optimizer": optim.Muon(average=0.9), "data": data.Text(source=str(text))}
        return Char1M(**values | changes)

    return make


@pytest.fixture
def quick(tmp_path):
    """Make a Run into a directory below the test's own: eager, fp32, one thread, no dashboard."""

    def make(name: str = "run", **changes: Any) -> Run:
        values: dict[str, Any] = {
            "out": tmp_path / name if name else None,
            "device": "cpu",
            "precision": "fp32",
            "compile": "none",
            "threads": 1,
        }
        values |= {"checkpoint": Checkpoints(every=3), "evaluate": Evaluations(every=2), "track": Track(wandb="off", every=3)}
        values |= {"sample": Samples(every=4, tokens=8)}
        return Run(**values | changes)

    return make


@pytest.fixture
def bytes_of():
    """Return the content of a run that must be the same whenever it is made again: relative path -> sha256."""

    def read(directory):
        names = [*directory.glob("checkpoints/*/*"), directory / "metrics.jsonl", directory / "samples.txt"]
        names += [directory / "tokenizer.json"]
        found = sorted(path for path in names if path.is_file())
        return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    return read


@pytest.fixture
def root():
    """Return the folder of the repository."""
    return Path(__file__).parent.parent
