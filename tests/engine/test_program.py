"""Programs: the same numbers as the functions they are made of, in memory that is written over.

Each test that compiles says how much: a piece takes the C++ compiler a second or more.
"""

import gc
import json
import os
import stat
import subprocess
import sys
import threading
from typing import NamedTuple

import attrs
import pytest
import torch

from craft import policy, tree
from craft.cache import cache_directory
from craft.engine import compile_function, compile_step
from craft.engine.program import _elsewhere, _Given, _key, _written, cache_compiled, compiler_missing

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


def simple(x, y):
    return {"product": x @ y, "sum": (x.exp().sum(), y)}


def arguments():
    return torch.linspace(0, 1, 6).view(2, 3), torch.linspace(-1, 1, 12).view(3, 4)


@pytest.fixture(scope="module")
def program():
    """Compile one small program."""
    return compile_function(simple, *arguments())


def test_a_program_is_found_again_with_its_bits(program):
    x, y = arguments()
    again = compile_function(simple, x, y)
    assert again.found
    assert again.digest == program.digest != ""
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(program(x, y)), tree.leaves(again(x, y)), strict=True))
    assert close(again(x * 2, y), simple(x * 2, y))
    assert tree.paths(again(x, y)) == tree.paths(simple(x, y))


@pytest.mark.parametrize("what", ["library", "content"])
def test_a_program_that_was_tampered_with_is_built_again(program, what):
    """Compiles that program again."""
    digest = compile_function(simple, *arguments()).digest
    folder = next(path for path in cache_directory("programs").iterdir() if digest in said(path))
    if what == "library":
        library = folder / "piece0.so"
        library.with_suffix(".part").write_bytes(library.read_bytes()[:100])
        os.replace(library.with_suffix(".part"), library)  # the whole one is mapped by this process
    else:
        content = json.loads(said(folder))
        content["plan"]["outputs"].reverse()
        (folder / "package.json").write_text(json.dumps(content), encoding="utf-8")
    again = compile_function(simple, *arguments())
    assert not again.found
    assert close(again(*arguments()), simple(*arguments()))
    assert compile_function(simple, *arguments()).found


def said(folder):
    path = folder / "package.json"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_what_shapes_a_program_is_in_its_key():
    def key(function=simple, args=None, blocks=False):
        leaves, structure = tree.flatten(args or arguments())
        return _key(function, leaves, structure, blocks)

    x, y = arguments()
    keys = {key(), key(blocks=True), key(lambda x, y: x @ y), key(args=(x[:1], y)), key(args=(x.double(), y.double()))}
    keys |= {key(args=(x, y.t().contiguous().t())), key(args=({"x": x}, y))}
    for changes in ({"compute": torch.bfloat16}, {"kernels": "math"}, {"rematerialise": True}, {"profile": True}):
        with policy.using(**changes):
            keys.add(key())
    torch.set_num_threads(2)
    keys.add(key())
    torch.set_num_threads(1)
    assert len(keys) == 12
    assert "" not in keys
    assert key() in keys


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((torch.ones(2, 2), torch.ones(3, 4)), r"got float32\[2, 2\] .* at 0; the program was compiled for float32\[2, 3\]"),
        ((torch.ones(2, 3), torch.ones(3, 5)), r"got float32\[3, 5\] .* at 1"),
        ((torch.ones(2, 3).bfloat16(), torch.ones(3, 4)), r"got bfloat16\[2, 3\]"),
        ((torch.ones(3, 2).t(), torch.ones(3, 4)), r"of strides \[1, 2\] .* of strides \[3, 1\]"),
        ((torch.ones(2, 3, device="meta"), torch.ones(3, 4)), r"on meta"),
        ((1.0, torch.ones(3, 4)), r"got 1.0 at 0"),
        ((torch.ones(2, 3),), r"got arguments of the structure"),
        (({"x": torch.ones(2, 3)}, torch.ones(3, 4)), r"got arguments of the structure"),
    ],
)
def test_other_arguments_are_refused(program, args, words):
    """Compiled code would read beyond their end."""
    with pytest.raises(ValueError, match=words):
        program(*args)
    assert close(program(*arguments()), simple(*arguments()))


def test_an_axis_of_one_may_have_any_stride():
    """Compiles one program."""
    run = compile_function(lambda x: x * 2, torch.ones(1, 3))
    assert torch.equal(run(torch.ones(2, 3)[:1].as_strided((1, 3), (77, 1))), torch.full((1, 3), 2.0))


def test_arguments_that_are_one_tensor_in_the_example_may_be_two_later():
    """Compiles one program."""
    x = torch.ones(3)
    assert torch.equal(compile_function(lambda a, b: a - 2 * b, x, x)(x, x * 5), torch.full((3,), -9.0))


def test_what_is_closed_over_is_kept_with_the_program():
    """Compiles one program."""
    table, weight = torch.arange(40.0).view(2, 20).t(), torch.nn.Parameter(torch.full((20,), 2.0))

    def function(x):
        return x * table[:, 0] + weight * torch.tensor(list(range(20)))

    x = torch.linspace(0, 1, 20)
    first, second = compile_function(function, x), compile_function(function, x)
    assert second.found
    assert torch.equal(first(x), second(x))
    assert close(first(x), function(x).detach())
    table[0, 0] += 1
    assert first.digest != _key(function, [x], tree.flatten((x,))[1], False)


def test_what_has_no_fingerprint_is_compiled_and_not_kept(tmp_path):
    """Compiles two programs."""
    for value in ((number for number in range(3)), (tmp_path / "file").open("w")):
        run = compile_function(lambda x, value=value: x + (1 if value else 0), torch.ones(2))
        assert (run.found, run.digest, run(torch.ones(2)).tolist()) == (False, "", [2, 2])
        value.close()


def test_a_cache_that_cannot_be_had_is_no_obstacle(monkeypatch, tmp_path):
    """Compiles two programs and, as there is no cache, the headers."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for number in (2, 3):
        run = compile_function(lambda x, number=number: x * number, torch.ones(2))
        assert run(torch.ones(2)).tolist() == [number, number]


def test_writes_in_place_are_written_out():
    """Compiles one program."""

    def function(x):
        y = torch.zeros(4)
        y[1] = x[0]
        y.mul_(2)
        y[2:].add_(3)
        x.add_(1)
        return y + x.sum()

    given, expected = torch.ones(3), torch.ones(3)
    assert torch.equal(compile_function(function, torch.ones(3))(given), function(expected))
    assert torch.equal(given, expected)


def test_what_our_way_cannot_torchs_can(monkeypatch):
    """Compiles one program twice: the first time, a function without C bindings is refused by the compiler."""
    monkeypatch.setattr("craft.engine.program._OTHERWISE", True)
    lines: list[str] = []
    x = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    run = compile_function(torch.linalg.cholesky, x, say=lines.append)
    assert torch.allclose(run(x), torch.linalg.cholesky(x))
    assert run.digest == ""
    assert sum("by torch's own ways" in line for line in lines) == 1


def test_errors_of_the_function_are_its_own():
    threads, collecting = threading.active_count(), gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        compile_function(lambda x: x / (1 // 0), torch.ones(2))
    with pytest.raises(ValueError, match=r"got 3.0 in what a program returns; expected tensors alone"):
        compile_function(lambda x: (x, 3.0), torch.ones(2))
    assert (threading.active_count(), gc.isenabled()) == (threads, collecting)


def test_an_index_out_of_range_is_an_exception():
    """Compiles one program."""
    run = compile_function(lambda x, i: x[i], torch.ones(5), torch.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="index out of bounds"):
        run(torch.ones(5), torch.tensor([1, 20]))


def test_a_state_may_lie_anywhere(tmp_path):
    """Compiles one program. Memory of a file, and memory that begins between the places that vectors like."""
    (tmp_path / "held").write_bytes(bytes(4 * 64))
    mapped = torch.from_file(str(tmp_path / "held"), shared=True, size=64)
    odd = torch.frombuffer(bytearray(4 * 65), dtype=torch.float32, offset=4)

    def update(state, batch):
        return {name: value + batch for name, value in state.items()}, {"sum": state["odd"].sum()}

    state = {"mapped": mapped, "odd": odd}
    run = compile_step(update, state, torch.ones(64))
    for turn in range(3):
        assert float(run(state, torch.ones(64))["sum"]) == 64 * turn
    assert mapped.tolist() == odd.tolist() == [3.0] * 64


SCRIPT = """
import sys, torch
from craft import grad, losses, optim, policy, step, types
from craft.engine import compile_step
from craft.models import Sequence
from craft.types import Batch
torch.set_num_threads(1)
model = Sequence(width=16, depth=2, std=0.3).build(11)
transform = optim.AdamW().build(model.spec, 0.01)
update = step.build(grad.reverse(losses.next_token(model)), transform)
state = step.starter(model.spec, transform, steps=9)(0)
ids = torch.arange(36).view(4, 9) % 11
batch = Batch(ids[:, :-1], ids[:, 1:], torch.ones(4, 8), torch.arange(4))
program = compile_step(update, state, batch, blocks=True)
print([float(program(state, batch)["loss"]).hex() for _ in range(3)])
print(program.found, [name for name in ("torch._inductor", "torch._dynamo") if name in sys.modules])
"""


def test_a_new_process_loads_what_another_built_with_the_same_bits_and_without_the_compiler(root):
    """Compiles a small model, once."""
    runs = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        runs.append(done.stdout.splitlines())
    assert runs[0][0] == runs[1][0]
    assert runs[0][1].startswith("False")
    assert runs[1][1] == "True []"


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


def test_torchs_own_ways_take_the_same_steps(tiny):
    """Compiles one program: for other devices, of a model whose stacked parameters are read by parts and written as a whole."""
    task = tiny(model=attrs.evolve(tiny().model, depth=2)).build()
    state, expected = task.init(0), task.init(0)
    program = _elsewhere(_written(task.step), _Given(*tree.flatten((state, task.data.batch(0)))), False)
    for index in range(3):
        metrics = program(state, task.data.batch(index))
        expected, others = task.step(expected, task.data.batch(index))
        assert torch.allclose(metrics["loss"], others["loss"], rtol=1e-5)
    for a, b in zip(tree.leaves(state), tree.leaves(expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
