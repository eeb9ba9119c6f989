"""Programs: the same numbers as the functions they are made of, in memory that is written over.

This file and test_core.py compile four programs with Inductor between them; each says so.
"""

import os
import stat
from typing import NamedTuple

import pytest
import torch

from craft import tree
from craft.engine import compile_function, compile_step
from craft.engine.program import cache_compiled, compiler_missing

CPU = torch.device("cpu")


def close(a, b):
    return all(torch.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


def test_a_compiled_step_writes_into_the_old_tensors(points):
    """Compiles one program, which test_core.py then finds in the cache."""
    batch = points.data.batch(0)
    expected, state = points.init(0), tree.map(torch.clone, points.init(0))
    program = compile_step(points.step, state, batch)
    assert close(state, expected)  # tracing changes nothing
    places = [leaf.data_ptr() for leaf in tree.leaves(state)]
    for _ in range(3):
        expected, wanted = points.step(expected, batch)
        metrics = program(state, batch)
        assert sorted(metrics) == sorted(wanted)
        assert close(metrics, wanted)
    assert close(state, expected)
    assert int(state.step) == 3
    assert [leaf.data_ptr() for leaf in tree.leaves(state)] == places
    assert program(state, {**batch, "y": batch["y"] * torch.nan})["loss"].isnan()
    assert bool(state.halted)
    assert close(state._replace(halted=expected.halted), expected)


def test_a_stacked_step_is_compiled_like_any_other(points):
    """Compiles one program: two trials in one."""
    batch = points.data.batch(0)
    pack = torch.func.vmap(points.step, in_dims=(0, None))
    states = tree.stack([points.init(0), points.init(1)])
    program = compile_function(pack, states, batch)
    expected, after = pack(states, batch), program(states, batch)
    assert close(after, expected)
    assert tree.paths(after) == tree.paths(expected)
    alone = [points.step(points.init(seed), batch)[1]["loss"] for seed in (0, 1)]
    assert torch.allclose(after[1]["loss"], torch.stack(alone), rtol=1e-5)
    assert not torch.equal(alone[0], alone[1])


class Moving(NamedTuple):
    """A state whose leaves change places, as a target network's or a swap's do."""

    step: torch.Tensor
    halted: torch.Tensor
    here: torch.Tensor
    there: torch.Tensor
    former: torch.Tensor


def test_a_leaf_that_moves_is_read_before_it_is_overwritten():
    """Compiles one program."""

    def update(state, batch):
        new = state._replace(step=state.step + 1, here=state.there, there=state.here + batch, former=state.here)
        return new, {"loss": state.here.sum(), "raw": state.step, "kept": state.halted}

    def start():
        return Moving(torch.tensor(0), torch.tensor(False), torch.ones(3), torch.full((3,), 2.0), torch.zeros(3))

    state, expected, batch = start(), start(), torch.full((3,), 10.0)
    program = compile_step(update, state, batch)
    for _ in range(3):
        expected, wanted = update(expected, batch)
        metrics = program(state, batch)
        assert close(metrics, wanted)
        assert close(state, expected)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def test_a_missing_compiler_is_told(no_compiler, monkeypatch, tmp_path):
    assert compiler_missing(CPU) == "no C++ compiler was found (c++, g++, clang++, cl)"
    monkeypatch.setenv("CXX", "my-compiler")
    assert compiler_missing(CPU) == "no C++ compiler was found (my-compiler)"
    tool = tmp_path / "my-compiler"
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    assert compiler_missing(CPU) == ""


def test_what_is_compiled_is_kept_in_private(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    cache_compiled(tmp_path / "compiled")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    assert stat.S_IMODE((tmp_path / "compiled").stat().st_mode) == 0o700
    assert list((tmp_path / "compiled").iterdir()) == []
    cache_compiled(tmp_path / "other")  # a choice that was made wins
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")


def test_a_cache_that_cannot_be_written_is_left_to_torch(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "file").touch()
    cache_compiled(tmp_path / "file")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
