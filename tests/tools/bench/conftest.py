"""A case small enough for a moment, and the results of a made-up run."""

import pytest

from tools.bench.cases import Case
from tools.bench.session import Session


@pytest.fixture
def tiny():
    return Case("tiny", depth=1, width=16, heads=2, context=16, batch=2, vocabulary=11, burst=2)


@pytest.fixture
def session(tmp_path, tiny):
    return Session(out=tmp_path, threads=1, cases=(tiny,), rounds=2)


@pytest.fixture
def results():
    """Return the steady section of three contestants in three rounds."""

    def one(peer, ms, **more):
        values = {"peer": peer, "variant": "x", "precision": "bf16", "kept": False, "architecture": "gpt2", "memory": ""}
        values |= {"ms": ms, "best_ms": min(ms), "peak": [100.0, 200.0, 100.0], "loss": 4.2, "parameters": 7, "idle": 0.0}
        return values | {"beside": {"craft step bf16": [10.0, 20.0, 10.0]}, "peak_mb": 300.0} | more

    contestants = {
        "craft step bf16": one("craft", [10.0, 20.0, 10.0]),
        "plain eager bf16": one("plain", [30.0, 50.0, 30.0]),
        "plain eager fp32": one("plain", [90.0, 90.0, 90.0], precision="fp32"),
    }
    case = {"tokens": 1000, "flops": 6e8, "parameters": 7, "multiplied": 7}
    return {"machine": {"commit": "abc"}, "steady": {"1m": {**case, "contestants": contestants, "not_run": {"jax": "no jax"}}}}
