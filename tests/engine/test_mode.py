"""The compile mode: what is asked for, or what pays."""

import pytest
import torch

from craft.engine import mode
from craft.engine.mode import choose_mode
from craft.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    """A machine with a compiler, at 100 GFLOP/s."""
    monkeypatch.setattr(mode, "compiler_missing", lambda device: "")
    monkeypatch.setattr(mode, "products", lambda dtype: 1e11)


def choose(asked="auto", device=CPU, steps=0, flops=0.0):
    return choose_mode(asked, device=device, dtype=torch.float32, steps=steps, flops=flops)


@pytest.mark.parametrize("asked", ["none", "block", "step"])
def test_what_is_asked_for_is_taken(asked):
    assert choose(asked) == (asked, "as asked")


def test_a_long_run_is_compiled_and_a_short_one_is_not():
    assert choose(steps=10, flops=1e9) == ("none", "the run is too short to win back the wait for a compiler")
    chosen, why = choose(steps=10_000, flops=1e10)
    assert chosen == "block"
    assert "saves about 1515 s of the run, costs about 20 s" in why


def test_the_threshold_is_the_wait():
    flops = 20.0 * 1e11 / (1 / 0.3 - 1 / 0.55)
    assert choose(steps=1, flops=0.99 * flops)[0] == "none"
    assert choose(steps=1, flops=1.01 * flops)[0] == "block"


def test_unknown_work_is_not_compiled():
    assert choose(steps=10**9, flops=0.0)[0] == "none"


def test_mps_is_not_compiled_by_itself():
    assert choose(device=torch.device("mps"), steps=10**6, flops=1e12) == ("none", "compiling for mps is young")


def test_a_gpu_is_judged_by_its_own_speed(monkeypatch):
    def refuse(dtype):
        raise AssertionError("products of the CPU say nothing of a GPU")

    monkeypatch.setattr(mode, "products", refuse)
    cuda = torch.device("cuda:0")
    assert choose(device=cuda, steps=1000, flops=1e10)[0] == "none"
    assert choose(device=cuda, steps=10**6, flops=1e13)[0] == "step"


def test_without_a_compiler_nothing_is_compiled_and_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(mode, "compiler_missing", lambda device: "no C++ compiler was found (c++)")
    assert choose(steps=10**6, flops=1e12) == (
        "none",
        "no C++ compiler was found (c++): running uncompiled, at about a third of the speed",
    )
    assert choose("none") == ("none", "as asked")
    for asked in ("block", "step"):
        with pytest.raises(UsageError, match=f"got --compile {asked}, but no C.. compiler was found .*take --compile none"):
            choose(asked)
