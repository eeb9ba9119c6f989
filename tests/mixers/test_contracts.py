"""Every mixer, run through every contract: one row each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from craft import mixers, param, policy, tree
from craft.mixers import Attention, FeedForward, Mixer, Recurrence
from craft.types import Context, Model, Tensor, Tree

WIDTH = 8
TIME = 9
CAPACITY = 16
K = 3


class Row(NamedTuple):
    """A mixer and its independent form, of parameters and input."""

    mixer: Mixer
    reference: Callable[[Tree, Tensor], Tensor]
    backward: bool = True
    """Whether a position depends on earlier ones."""


def affine(params: Tree, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, params[name].mT, params.get(f"{name}_bias"))


def attention(heads: int, groups: int, rotary: bool = True, normed: bool = True) -> Callable[[Tree, Tensor], Tensor]:
    def apply(params: Tree, x_BTD: Tensor) -> Tensor:
        each = x_BTD.shape[-1] // heads
        q, k, v = (
            affine(params, name, x_BTD).reshape(*x_BTD.shape[:2], number, each).transpose(1, 2)
            for name, number in (("query", heads), ("key", groups), ("value", groups))
        )
        if normed:
            q, k = (functional.rms_norm(x, (each,), eps=1e-6) for x in (q, k))
        if rotary:
            wave = 10_000.0 ** (-torch.arange(each // 2, dtype=x_BTD.dtype) / (each // 2))
            angle = torch.arange(x_BTD.shape[1])[:, None] * wave
            spin = torch.polar(torch.ones_like(angle), angle)
            q, k = (torch.complex(*x.chunk(2, -1)) * spin for x in (q, k))
            q, k = (torch.cat((x.real, x.imag), -1) for x in (q, k))
        y: Tensor = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return affine(params, "out", y.transpose(1, 2).flatten(2))

    return apply


def feedforward(inner: Callable[[Tree, Tensor], Tensor]) -> Callable[[Tree, Tensor], Tensor]:
    return lambda params, x_BTD: affine(params, "out", inner(params, x_BTD))


def recurrence(params: Tree, x_BTD: Tensor) -> Tensor:
    state, rows = torch.zeros(x_BTD.shape[0], params["gate"].shape[1], dtype=x_BTD.dtype), []
    for x_BD in x_BTD.unbind(1):
        gate = torch.sigmoid(x_BD @ params["gate"] + params["gate_bias"])
        state = (1 - gate) * state + gate * (x_BD @ params["candidate"])
        rows.append(state @ params["out"])
    return torch.stack(rows, 1)


TABLE = {
    "Attention": Row(Attention(heads=2), attention(2, 2)),
    "Attention grouped": Row(Attention(heads=4, groups=2), attention(4, 2)),
    "Attention one group": Row(Attention(heads=4, groups=1), attention(4, 1)),
    "Attention no rotary": Row(Attention(heads=2, rotary=False), attention(2, 2, rotary=False)),
    "Attention no norm": Row(Attention(heads=2, normed=False), attention(2, 2, normed=False)),
    "Attention biased": Row(Attention(heads=4, groups=2, bias=True), attention(4, 2)),
    "Attention biased, nothing else": Row(
        Attention(heads=2, rotary=False, normed=False, bias=True), attention(2, 2, rotary=False, normed=False)
    ),
    "FeedForward gelu": Row(
        FeedForward(activation="gelu"), feedforward(lambda p, x: functional.gelu(x @ p["up"])), backward=False
    ),
    "FeedForward relu2": Row(
        FeedForward(activation="relu2"), feedforward(lambda p, x: (x @ p["up"]).clamp(min=0) ** 2), backward=False
    ),
    "FeedForward swiglu": Row(
        FeedForward(activation="swiglu", expand=1.5),
        feedforward(lambda p, x: (x @ p["up"]) * (x @ p["gate"]) * torch.sigmoid(x @ p["gate"])),
        backward=False,
    ),
    "FeedForward gelu_tanh": Row(
        FeedForward(activation="gelu_tanh"),
        feedforward(lambda p, x: functional.gelu(x @ p["up"], approximate="tanh")),
        backward=False,
    ),
    "FeedForward gelu_tanh biased": Row(
        FeedForward(activation="gelu_tanh", bias=True),
        feedforward(lambda p, x: functional.gelu(affine(p, "up", x), approximate="tanh")),
        backward=False,
    ),
    "FeedForward swiglu biased": Row(
        FeedForward(activation="swiglu", bias=True),
        feedforward(lambda p, x: affine(p, "up", x) * functional.silu(affine(p, "gate", x))),
        backward=False,
    ),
    "Recurrence": Row(Recurrence(), recurrence),
}
"""Every row: one way in which a mixer may be configured."""

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_params(spec: Tree, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tree:
    """Make parameters that are nowhere zero: output projections start there, and would hide everything."""
    made = tree.cast(param.materialise(spec, seed), dtype)
    return tree.map(lambda leaf: leaf + 0.3 * noise(tuple(leaf.shape), seed + leaf.numel(), dtype), made)


def build(row: Row, dtype: torch.dtype = torch.float64) -> tuple[Model, Tree, Tensor]:
    model = row.mixer.build(WIDTH)
    return model, random_params(model.spec, dtype), noise((2, TIME, WIDTH), 5, dtype)


def number(model: Model) -> Callable[[Tree, Tensor], Tensor]:
    """Make one number of the output, that depends on all of it."""

    def value(params: Tree, x_BTD: Tensor) -> Tensor:
        y = model.apply(params, x_BTD, Context())[0]
        return (y * torch.arange(1, y.numel() + 1).reshape(y.shape).sin().to(y.dtype)).sum()

    return value


def pieces(model: Model, params: Tree, x_BTD: Tensor, lengths: list[int]) -> Tensor:
    memory, parts, start = model.memory(x_BTD.shape[0], CAPACITY, x_BTD.dtype), [], 0
    for length in lengths:
        y_BTD, memory = model.advance(params, x_BTD[:, start : start + length], memory, Context())
        parts.append(y_BTD)
        start += length
    return torch.cat(parts, 1)


def close(first: Tree, second: Tree, tolerance: float) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{path} differs by up to {(a - b).abs().max()}")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def test_every_public_name_has_a_row() -> None:
    public = {name for name in vars(mixers) if name[0].isupper() and name != "Mixer"}
    assert public == {name.split()[0] for name in TABLE}
    assert {kind.__name__ for kind in mixers.Mixer.__args__} == public


@rows
def test_a_new_mixer_is_silent(row: Row) -> None:
    """Its output projection starts at zero, so that a block starts as the identity."""
    model = row.mixer.build(WIDTH)
    y, extras = model.apply(param.materialise(model.spec, 0), noise((2, 3, WIDTH), 0, torch.float32), Context())
    assert torch.equal(y, torch.zeros(2, 3, WIDTH))
    assert extras == {}


@rows
@pytest.mark.parametrize("kernels", ["auto", "math"])
def test_values_and_gradients_equal_an_independent_form(row: Row, kernels: str) -> None:
    model, params, x_BTD = build(row)
    flow = noise((2, TIME, WIDTH), 9)
    with policy.using(kernels=kernels):
        close(model.apply(params, x_BTD, Context())[0], row.reference(params, x_BTD), 1e-11)
        ours = torch.func.grad(lambda p, x: (model.apply(p, x, Context())[0] * flow).sum(), (0, 1))(params, x_BTD)
    close(ours, torch.func.grad(lambda p, x: (row.reference(p, x) * flow).sum(), (0, 1))(params, x_BTD), 1e-10)


@rows
def test_gradients_equal_finite_differences(row: Row) -> None:
    """Central differences along random directions in float64, with the kernels that training uses."""
    model, params, x_BTD = build(row)
    value, step = number(model), 1e-6
    grads = torch.func.grad(value, (0, 1))(params, x_BTD)
    for seed in range(3):
        along = tree.map(lambda leaf, seed=seed: noise(tuple(leaf.shape), 100 * seed + leaf.numel()), (params, x_BTD))
        ahead, behind = (tree.map(lambda p, v, s=s: p + s * step * v, (params, x_BTD), along) for s in (1, -1))
        slope = torch.stack([(g * v).sum() for g, v in zip(tree.leaves(grads), tree.leaves(along), strict=True)]).sum()
        torch.testing.assert_close((value(*ahead) - value(*behind)) / (2 * step), slope, rtol=1e-6, atol=1e-6)


@rows
def test_forward_mode_and_second_derivatives_work_on_plain_operations(row: Row) -> None:
    model, params, x_BTD = build(row)
    value, step = number(model), 1e-6
    along = tree.map(lambda leaf: noise(tuple(leaf.shape), leaf.numel()), (params, x_BTD))
    ahead, behind = (tree.map(lambda p, v, s=s: p + s * step * v, (params, x_BTD), along) for s in (1, -1))
    first = torch.func.grad(value, (0, 1))

    def directional(params: Tree, x_BTD: Tensor) -> Tensor:
        grads = tree.leaves(first(params, x_BTD))
        return torch.stack([(g * v).sum() for g, v in zip(grads, tree.leaves(along), strict=True)]).sum()

    with policy.using(kernels="math"):
        slope = torch.func.jvp(value, (params, x_BTD), along)[1]
        torch.testing.assert_close(slope, directional(params, x_BTD), rtol=1e-10, atol=1e-10)
        second = torch.func.grad(directional, (0, 1))(params, x_BTD)
        mixed = torch.func.jvp(first, (params, x_BTD), along)[1]  # forward over reverse
    close(second, mixed, 1e-9)
    close(second, tree.map(lambda a, b: (a - b) / (2 * step), first(*ahead), first(*behind)), 1e-5)


@rows
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, TIME - 1)))
def test_apply_equals_advance_in_pieces(row: Row, cuts: set[int]) -> None:
    model, params, x_BTD = build(row)
    edges = [0, *sorted(cuts), TIME]
    lengths = [high - low for low, high in itertools.pairwise(edges)]
    close(pieces(model, params, x_BTD, lengths), model.apply(params, x_BTD, Context())[0], 1e-11)


@rows
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_apply_equals_advance_in_every_type(row: Row, dtype: torch.dtype, tolerance: float) -> None:
    model, params, x_BTD = build(row, dtype)
    params = tree.cast(params, torch.float32)
    whole = model.apply(params, x_BTD, Context())[0]
    largest = max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(pieces(model, params, x_BTD, [4, 1, 1, 3]), whole, rtol=0, atol=tolerance * largest)


@rows
def test_every_row_of_a_memory_has_its_own_position(row: Row) -> None:
    model, params, x_BTD = build(row)
    memories = []
    for sample, seen in ((0, 3), (1, 6)):
        memory = model.memory(1, CAPACITY, x_BTD.dtype)
        memories.append(model.advance(params, x_BTD[sample : sample + 1, :seen], memory, Context())[1])
    joined = tree.map(lambda *parts: torch.cat(parts), *memories)
    y_BTD, _ = model.advance(params, torch.stack((x_BTD[0, 3:6], x_BTD[1, 6:9])), joined, Context())
    whole = model.apply(params, x_BTD, Context())[0]
    close(y_BTD, torch.stack((whole[0, 3:6], whole[1, 6:9])), 1e-11)


@rows
def test_a_memory_starts_with_the_batch_and_is_never_written(row: Row) -> None:
    model, params, x_BTD = build(row)
    empty = model.memory(2, CAPACITY, torch.float64)
    before = tree.map(torch.clone, empty)
    _, after = model.advance(params, x_BTD, empty, Context())
    assert tree.flatten(empty)[1] == tree.flatten(after)[1]
    for old, kept, new in zip(tree.leaves(before), tree.leaves(empty), tree.leaves(after), strict=True):
        assert torch.equal(old, kept)
        assert old.shape[0] == 2
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


@rows
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_memories_keep_their_type(row: Row, dtype: torch.dtype) -> None:
    model, params, x_BTD = build(row, dtype)
    memory = model.memory(2, CAPACITY, dtype)
    y_BTD, after = model.advance(params, x_BTD, memory, Context())
    assert y_BTD.dtype == dtype
    assert [leaf.dtype for leaf in tree.leaves(after)] == [leaf.dtype for leaf in tree.leaves(memory)]


@rows
@pytest.mark.parametrize("kernels", ["auto", "math"])
def test_nothing_depends_on_what_comes_later(row: Row, kernels: str) -> None:
    model, params, x_BTD = build(row)
    with policy.using(kernels=kernels):
        whole = model.apply(params, x_BTD, Context())[0]
        for cut in range(1, TIME):
            other = torch.cat((x_BTD[:, :cut], 5 - 2 * x_BTD[:, cut:]), 1)
            changed = model.apply(params, other, Context())[0]
            assert torch.equal(changed[:, :cut], whole[:, :cut])
            assert not torch.isclose(changed[:, cut:], whole[:, cut:]).all(-1).any()


@rows
def test_what_came_before_counts_where_it_should(row: Row) -> None:
    model, params, x_BTD = build(row)
    other = torch.cat((x_BTD[:, :1] + 1, x_BTD[:, 1:]), 1)
    moved = (model.apply(params, other, Context())[0] - model.apply(params, x_BTD, Context())[0]).abs().sum(-1) > 1e-9
    assert moved[:, 0].all()
    assert bool(moved[:, 1:].all()) == row.backward
    assert bool(moved[:, 1:].any()) == row.backward


@rows
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_types_are_kept(row: Row, dtype: torch.dtype) -> None:
    """Activations stay in their type, gradients come in that of the parameters, which stay float32 below bfloat16."""
    model, params, x_BTD = build(row, dtype)
    params = tree.cast(params, torch.promote_types(dtype, torch.float32))
    y_BTD = model.apply(params, x_BTD, Context())[0]
    assert (y_BTD.dtype, y_BTD.shape) == (dtype, x_BTD.shape)
    exact = row.reference(tree.cast(params, torch.float64), x_BTD.double())
    limit = {torch.bfloat16: 0.05, torch.float32: 1e-5, torch.float64: 1e-12}[dtype] * max(1.0, float(exact.abs().max()))
    assert float((y_BTD.double() - exact).abs().max()) < limit
    grads = torch.func.grad(number(model))(params, x_BTD)
    assert {leaf.dtype for leaf in tree.leaves(grads)} == {leaf.dtype for leaf in tree.leaves(params)}


@rows
@pytest.mark.parametrize("width", [4, 8, 12])
def test_other_widths(row: Row, width: int) -> None:
    heads = getattr(row.mixer, "heads", 1)
    if (width // heads) % 2 or width % heads:
        with pytest.raises(ValueError, match="even number of features a head"):
            row.mixer.build(width)
        return
    model = row.mixer.build(width)
    params = random_params(model.spec)
    x_BTD = noise((1, 1, width), 0)
    close(model.apply(params, x_BTD, Context())[0], row.reference(params, x_BTD), 1e-11)


@rows
def test_inputs_are_never_written(row: Row) -> None:
    model, params, x_BTD = build(row)
    before = tree.map(torch.clone, (params, x_BTD))
    torch.func.grad(number(model), (0, 1))(params, x_BTD)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(before), tree.leaves((params, x_BTD)), strict=True))


@rows
def test_a_pack_equals_its_members_alone(row: Row) -> None:
    model, _, x_BTD = build(row)
    members = [random_params(model.spec, seed=seed) for seed in range(K)]
    slope = torch.func.grad_and_value(number(model))
    packed = torch.func.vmap(slope, in_dims=(0, None))(tree.stack(members), x_BTD)
    for member, one in zip(members, tree.unstack(packed), strict=True):
        close(one, slope(member, x_BTD), 1e-10)
    total = torch.func.grad(lambda p: torch.func.vmap(number(model), in_dims=(0, None))(p, x_BTD).sum())
    close(total(tree.stack(members)), packed[0], 1e-10)


@rows
def test_a_compiled_pack_equals_a_pack(row: Row) -> None:
    model, _, x_BTD = build(row)
    packed = tree.stack([random_params(model.spec, seed=seed) for seed in range(K)])
    slope = torch.func.vmap(torch.func.grad_and_value(number(model)), in_dims=(0, None))
    compiled = torch.compile(slope, fullgraph=True, backend="aot_eager")
    close(compiled(packed, x_BTD), slope(packed, x_BTD), 1e-10)


@rows
def test_a_compiled_advance_equals_eager(row: Row) -> None:
    model, params, x_BTD = build(row)
    memory = model.advance(params, x_BTD[:, :4], model.memory(2, CAPACITY, x_BTD.dtype), Context())[1]
    compiled = torch.compile(model.advance, fullgraph=True, backend="aot_eager")
    close(compiled(params, x_BTD[:, 4:6], memory, Context()), model.advance(params, x_BTD[:, 4:6], memory, Context()), 1e-11)


def test_a_full_memory_refuses_more() -> None:
    model, params, x_BTD = build(TABLE["Attention"])
    memory = model.memory(2, TIME, x_BTD.dtype)
    y_BTD, memory = model.advance(params, x_BTD, memory, Context())
    close(y_BTD, model.apply(params, x_BTD, Context())[0], 1e-11)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        model.advance(params, x_BTD[:, :1], memory, Context())


def test_room_that_is_not_used_does_not_matter() -> None:
    model, params, x_BTD = build(TABLE["Attention grouped"])
    first = model.advance(params, x_BTD, model.memory(2, TIME, x_BTD.dtype), Context())[0]
    roomy = model.memory(2, 3 * TIME, x_BTD.dtype)
    roomy = roomy._replace(value_BSGE=roomy.value_BSGE + 1e6, key_BSGE=roomy.key_BSGE + 1e6)
    close(model.advance(params, x_BTD, roomy, Context())[0], first, 1e-11)


def test_a_memory_in_half_precision_serves_wider_activations() -> None:
    model, params, x_BTD = build(TABLE["Attention"], torch.float32)
    y_BTD, memory = model.advance(params, x_BTD, model.memory(2, TIME, torch.bfloat16), Context())
    assert (y_BTD.dtype, memory.key_BSGE.dtype) == (torch.float32, torch.bfloat16)
    close(y_BTD, model.apply(params, x_BTD, Context())[0], 0.1)


def test_the_state_of_a_recurrence_is_wide() -> None:
    model = Recurrence().build(WIDTH)
    assert model.memory(2, 4, torch.bfloat16).dtype == torch.float32
    assert model.memory(2, 4, torch.float64).dtype == torch.float64


def test_a_recurrence_remembers_for_two_to_fifty_five_steps_at_first() -> None:
    model = Recurrence(expand=2).build(WIDTH)
    forget = torch.sigmoid(-param.materialise(model.spec, 0)["gate_bias"].double())
    half = 1 / (1 - forget)
    assert float(half.min()) == pytest.approx(2)
    assert float(half.max()) == pytest.approx(1 + math.exp(4))


def test_widths_inside() -> None:
    assert FeedForward(expand=1.5, activation="swiglu").build(8).spec["gate"].shape == (8, 12)
    assert FeedForward(expand=0.01).build(8).spec["up"].shape == (8, 1)
    assert Recurrence(expand=0.01).build(8).spec["gate"].shape == (8, 1)
    assert Attention(heads=4, groups=2).build(8).spec["key"].shape == (8, 4)


def test_biases_are_there_when_they_are_asked_for() -> None:
    assert not [name for name in Attention().build(8).spec | FeedForward().build(8).spec if "bias" in name]
    spec = Attention(heads=4, groups=2, bias=True).build(8).spec
    biases = {name: one for name, one in spec.items() if name.endswith("_bias")}
    assert {name: one.shape for name, one in biases.items()} == {
        "query_bias": (8,), "key_bias": (4,), "value_bias": (4,), "out_bias": (8,)
    }  # fmt: skip
    assert {name: one.axes for name, one in biases.items()} == {
        "query_bias": ("H",), "key_bias": ("G",), "value_bias": ("G",), "out_bias": ("D",)
    }  # fmt: skip
    swiglu = FeedForward(activation="swiglu", expand=2.0, bias=True).build(8).spec
    assert [swiglu[f"{name}_bias"].shape for name in ("up", "gate", "out")] == [(16,), (16,), (8,)]


@pytest.mark.parametrize(
    ("mixer", "width", "message"),
    [
        (Attention(heads=3), 8, "even number of features a head"),
        (Attention(heads=8), 8, "even number of features a head"),
        (Attention(heads=4, groups=3), 8, "divisor of the heads"),
        (Attention(heads=2, groups=4), 8, "divisor of the heads"),
    ],
)
def test_heads_that_do_not_fit_are_refused(mixer: Attention, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixer.build(width)


def test_numbers_out_of_range_are_refused() -> None:
    for make in (lambda: Attention(heads=0), lambda: FeedForward(expand=0.0), lambda: Recurrence(expand=-1.0)):
        with pytest.raises(ValueError):
            make()
