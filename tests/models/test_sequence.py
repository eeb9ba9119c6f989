"""The model of sequences: every family, run through every contract, and equal to its blocks written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from craft import grad, losses, models, optim, param, policy, rng, tree
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.models.sequence import _names
from craft.types import Batch, Context, Extras, Model, Tensor, Tree

TIME = 7
DEFAULT_SQUARES = 12810.978355273324
"""Sum of the squares of the default model's first numbers, with seed 0."""
CAPACITY = 12
K = 3


class Row(NamedTuple):
    """A configuration and the number of its tokens."""

    config: Sequence
    vocabulary: int = 11


TABLE = {
    "attention": Row(Sequence(width=8, depth=1, pattern=(Attention(heads=2), FeedForward()))),
    "attention tied": Row(Sequence(width=8, depth=1, pattern=(Attention(heads=2, groups=1), FeedForward()), tied=True)),
    "recurrent": Row(Sequence(width=8, depth=1, pattern=(Recurrence(), FeedForward(activation="gelu")))),
    "recurrent tied, many tokens": Row(Sequence(width=4, depth=1, pattern=(Recurrence(),), tied=True), vocabulary=600),
    "hybrid": Row(Sequence(width=8, depth=1, pattern=(Recurrence(), Attention(heads=2), FeedForward(activation="swiglu")))),
    "learned positions": Row(
        Sequence(width=8, depth=1, pattern=(Attention(heads=2, rotary=False), FeedForward()), positions=CAPACITY)
    ),
    "layer norm": Row(Sequence(width=8, depth=1, pattern=(Recurrence(), FeedForward()), norm="layer")),
    "everything of GPT-2": Row(models.gpt2(width=8, depth=1, heads=2, context=CAPACITY), vocabulary=600),
    "hybrid tied": Row(Sequence(width=8, depth=1, pattern=(Attention(heads=2), Recurrence(), Attention(heads=4)), tied=True)),
}
"""Every row: a family; tied or not, with a small vocabulary (a product) or a large one (rows looked up)."""

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_params(spec: Tree, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tree:
    """Make parameters that are nowhere zero: output projections and the head start there, and would hide everything."""
    made = tree.cast(param.materialise(spec, seed), dtype)
    return tree.map(lambda leaf: leaf + 0.3 * noise(tuple(leaf.shape), seed + leaf.numel(), dtype), made)


def ids(row: Row, batch: int = 2, time: int = TIME, seed: int = 0) -> Tensor:
    return torch.randint(row.vocabulary, (batch, time), generator=torch.Generator().manual_seed(seed))


def build(row: Row, dtype: torch.dtype = torch.float64) -> tuple[Model, Tree, Tensor]:
    model = row.config.build(row.vocabulary)
    return model, random_params(model.spec, dtype), ids(row)


def batch_of(row: Row) -> Batch:
    weights = torch.tensor([[1.0] * TIME, [1.0] * 3 + [0.0] * (TIME - 3)])
    return Batch(ids(row), ids(row, seed=1), weights, torch.tensor([4, 9]))


def objective(row: Row, ctx: Context | None = None) -> tuple[Callable[[Tree], Tensor], Tree]:
    model, params, _ = build(row)
    loss, batch = losses.next_token(model), batch_of(row)
    return lambda p: loss(p, batch, ctx or Context())[0], params


def close(first: Tree, second: Tree, tolerance: float) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{path} differs by up to {(a - b).abs().max()}")


def pieces(model: Model, params: Tree, ids_BT: Tensor, lengths: list[int], dtype: torch.dtype = torch.float64) -> Tensor:
    memory, parts, start = model.memory(ids_BT.shape[0], CAPACITY, dtype), [], 0
    for length in lengths:
        logits, memory = model.advance(params, ids_BT[:, start : start + length], memory, Context())
        parts.append(logits)
        start += length
    return torch.cat(parts, 1)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def test_every_public_name_has_a_row() -> None:
    public = {name for name in vars(models) if name[0].isupper()}
    assert public == {type(row.config).__name__ for row in TABLE.values()}


@rows
def test_values_equal_the_blocks_written_out(row: Row) -> None:
    model, params, ids_BT = build(row)
    parts = [mixer.build(row.config.width) for mixer in row.config.pattern]

    def norm(x: Tensor, params: Tree) -> Tensor:
        if row.config.norm == "layer":
            return functional.layer_norm(x, x.shape[-1:], params["scale"], params["bias"], 1e-5)
        return functional.rms_norm(x, x.shape[-1:], params, eps=1e-6)

    x = params["embed"][ids_BT]
    if row.config.positions:
        x = x + params["position_embed"][torch.arange(TIME)]
    for block in tree.unstack(params["blocks"]):
        for name, part in zip(_names(row.config.pattern), parts, strict=True):
            x = x + part.apply(block[name], norm(x, block[name]["norm"]), Context())[0]
    expected = norm(x, params["norm"]) @ (params["embed"].mT if row.config.tied else params["head"])
    close(model.apply(params, ids_BT, Context())[0], expected, 1e-11)


@rows
def test_gradients_equal_finite_differences(row: Row) -> None:
    value, params = objective(row, Context(key=rng.key(0)))
    grads, step = torch.func.grad(value)(params), 1e-6
    for seed in range(2):
        along = tree.map(lambda leaf, seed=seed: noise(tuple(leaf.shape), 100 * seed + leaf.numel()), params)
        ahead, behind = (tree.map(lambda p, v, s=s: p + s * step * v, params, along) for s in (1, -1))
        slope = torch.stack([(g * v).sum() for g, v in zip(tree.leaves(grads), tree.leaves(along), strict=True)]).sum()
        torch.testing.assert_close((value(ahead) - value(behind)) / (2 * step), slope, rtol=1e-6, atol=1e-7)


@rows
def test_forward_mode_and_second_derivatives_work_on_plain_operations(row: Row) -> None:
    value, params = objective(row)
    along = tree.map(lambda leaf: noise(tuple(leaf.shape), leaf.numel()), params)
    first = torch.func.grad(value)

    def directional(params: Tree) -> Tensor:
        grads = tree.leaves(first(params))
        return torch.stack([(g * v).sum() for g, v in zip(grads, tree.leaves(along), strict=True)]).sum()

    with policy.using(kernels="math"):
        torch.testing.assert_close(torch.func.jvp(value, (params,), (along,))[1], directional(params), rtol=1e-9, atol=1e-9)
        second = torch.func.grad(directional)(params)
    ahead, behind = (tree.map(lambda p, v, s=s: p + s * 1e-6 * v, params, along) for s in (1, -1))
    close(second, tree.map(lambda a, b: (a - b) / 2e-6, first(ahead), first(behind)), 1e-5)


@rows
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_apply_equals_advance_in_pieces(row: Row, data: Any) -> None:
    model, params, ids_BT = build(row)
    lengths: list[int] = []
    while sum(lengths) < TIME:
        lengths.append(data.draw(st.integers(1, TIME - sum(lengths))))
    close(pieces(model, params, ids_BT, lengths), model.apply(params, ids_BT, Context())[0], 1e-10)


@rows
def test_nothing_depends_on_what_comes_later(row: Row) -> None:
    model, params, ids_BT = build(row)
    whole = model.apply(params, ids_BT, Context())[0]
    for cut in range(1, TIME):
        other = torch.cat((ids_BT[:, :cut], (ids_BT[:, cut:] + 1) % row.vocabulary), 1)
        changed = model.apply(params, other, Context())[0]
        assert torch.equal(changed[:, :cut], whole[:, :cut])
        assert not torch.isclose(changed[:, cut:], whole[:, cut:]).all(-1).any()


@rows
def test_rows_of_a_batch_do_not_see_each_other(row: Row) -> None:
    model, params, ids_BT = build(row)
    whole = model.apply(params, ids_BT, Context())[0]
    close(model.apply(params, ids_BT[1:], Context())[0], whole[1:], 1e-12)


@rows
def test_the_policy_sets_the_type_and_logits_stay_wide(row: Row) -> None:
    model, params, ids_BT = build(row)
    exact = model.apply(params, ids_BT, Context())[0]
    assert exact.dtype == torch.float64
    low = tree.cast(params, torch.float32)
    for compute, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        with policy.using(compute=compute):
            logits = model.apply(low, ids_BT, Context())[0]
            grown = pieces(model, low, ids_BT, [3, 1, 3], compute)
            grads = torch.func.grad(lambda p: losses.next_token(model)(p, batch_of(row), Context())[0])(low)
        assert logits.dtype == grown.dtype == torch.float32
        assert {leaf.dtype for leaf in tree.leaves(grads)} == {torch.float32}
        for ours in (logits, grown):
            assert float((ours.double() - exact).abs().max()) < tolerance * float(exact.abs().max())
    assert not torch.equal(model.apply(low, ids_BT, Context())[0], logits)


@rows
def test_a_new_model_is_undecided_if_its_head_is_its_own(row: Row) -> None:
    model = row.config.build(row.vocabulary)
    logits = model.apply(param.materialise(model.spec, 0), ids(row), Context())[0]
    assert logits.shape == (2, TIME, row.vocabulary)
    assert bool((logits == 0).all()) != row.config.tied


@rows
def test_features_times_head_are_the_logits(row: Row) -> None:
    model, params, ids_BT = build(row)
    assert model.features is not None
    assert model.head is not None
    features_BTD, extras = model.features(params, ids_BT, Context())
    logits_BTV, expected = model.apply(params, ids_BT, Context())
    close(features_BTD @ model.head(params), logits_BTV, 1e-12)
    assert extras == expected == {}


@rows
def test_rematerialised_gradients_are_the_same(row: Row) -> None:
    value, params = objective(row, Context(key=rng.key(0)))
    plain = torch.func.grad(value)(params)
    with policy.using(wrap=grad.remat):
        close(torch.func.grad(value)(params), plain, 1e-10)


@rows
def test_a_compiled_advance_equals_eager(row: Row) -> None:
    model, params, ids_BT = build(row)
    memory = model.advance(params, ids_BT[:, :4], model.memory(2, CAPACITY, torch.float64), Context())[1]
    compiled = torch.compile(model.advance, fullgraph=True, backend="aot_eager")
    close(compiled(params, ids_BT[:, 4:6], memory, Context()), model.advance(params, ids_BT[:, 4:6], memory, Context()), 1e-11)


@rows
def test_every_row_of_a_memory_has_its_own_position(row: Row) -> None:
    model, params, ids_BT = build(row)
    memories = []
    for sample, seen in ((0, 2), (1, 4)):
        memory = model.memory(1, CAPACITY, torch.float64)
        memories.append(model.advance(params, ids_BT[sample : sample + 1, :seen], memory, Context())[1])
    joined = tree.map(lambda *parts: torch.cat(parts), *memories)
    grown, after = model.advance(params, torch.stack((ids_BT[0, 2:5], ids_BT[1, 4:7])), joined, Context())
    whole = model.apply(params, ids_BT, Context())[0]
    close(grown, torch.stack((whole[0, 2:5], whole[1, 4:7])), 1e-11)
    assert after.position_B.tolist() == [5, 7]


@rows
def test_a_pack_equals_its_members_alone(row: Row) -> None:
    value, _ = objective(row)
    members = [random_params(row.config.build(row.vocabulary).spec, seed=seed) for seed in range(K)]
    slope = torch.func.grad_and_value(value)
    packed = torch.func.vmap(slope)(tree.stack(members))
    for member, one in zip(members, tree.unstack(packed), strict=True):
        close(one, slope(member), 1e-10)
    close(torch.func.grad(lambda p: torch.func.vmap(value)(p).sum())(tree.stack(members)), packed[0], 1e-10)


@rows
def test_a_compiled_pack_equals_a_pack(row: Row) -> None:
    value, _ = objective(row)
    packed = tree.stack([random_params(row.config.build(row.vocabulary).spec, seed=seed) for seed in range(K)])
    slope = torch.func.vmap(torch.func.grad_and_value(value))
    close(torch.compile(slope, fullgraph=True, backend="aot_eager")(packed), slope(packed), 1e-10)


@pytest.mark.parametrize("name", ["hybrid"])
def test_compiled_equals_eager(name: str) -> None:
    value, params = objective(TABLE[name], Context(key=rng.key(0)))
    slope = torch.func.grad_and_value(value)
    close(torch.compile(slope, fullgraph=True, backend="aot_eager")(params), slope(params), 1e-10)


# learned positions


def test_a_sequence_without_a_position_is_refused() -> None:
    row = TABLE["learned positions"]
    model, params, _ = build(row)
    model.apply(params, ids(row, time=CAPACITY), Context())
    model.memory(2, CAPACITY, torch.float32)
    message = f"got a sequence of {CAPACITY + 1} tokens for a model with {CAPACITY} learned positions"
    with pytest.raises(ValueError, match=message):
        model.apply(params, ids(row, time=CAPACITY + 1), Context())
    with pytest.raises(ValueError, match=message):
        model.memory(2, CAPACITY + 1, torch.float32)


def test_beyond_the_last_position_nothing_is_read() -> None:
    """A recurrence has room without end, so that only the table can refuse."""
    model = Sequence(width=8, depth=1, pattern=(Recurrence(),), positions=TIME).build(11)
    params = random_params(model.spec)
    _, memory = model.advance(params, ids(TABLE["recurrent"]), model.memory(2, TIME, torch.float64), Context())
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        model.advance(params, ids(TABLE["recurrent"], time=1), memory, Context())


def test_positions_tell_the_order_where_nothing_else_does() -> None:
    row = TABLE["learned positions"]
    model, params, _ = build(row)
    same = torch.full((1, TIME), 3)
    assert not torch.isclose(*model.apply(params, same, Context())[0][0, [1, 4]]).all()
    without = attrs.evolve(row.config, positions=0).build(row.vocabulary)
    torch.testing.assert_close(*without.apply(params, same, Context())[0][0, [1, 4]])


# dropout


DROPPED = Row(attrs.evolve(TABLE["attention"].config, dropout=0.5))


def logits_with(ctx: Context, row: Row = DROPPED) -> Tensor:
    model, params, ids_BT = build(row)
    return model.apply(params, ids_BT.expand(2, TIME), ctx)[0]


def keyed(seed: int, samples: list[int], **more: Any) -> Context:
    return Context(key=rng.fold_in(rng.key(seed), torch.tensor(samples)), **more)


def test_dropout_needs_a_key() -> None:
    assert torch.equal(logits_with(Context()), logits_with(Context(), TABLE["attention"]))
    assert not torch.allclose(logits_with(keyed(0, [0, 1])), logits_with(Context()))
    assert torch.equal(logits_with(keyed(0, [0, 1])), logits_with(keyed(0, [0, 1])))


def test_without_dropout_a_key_changes_nothing() -> None:
    assert torch.equal(logits_with(keyed(0, [0, 1]), TABLE["attention"]), logits_with(Context(), TABLE["attention"]))


def test_the_rate_may_be_a_number_of_the_run() -> None:
    at_zero = keyed(0, [0, 1], hyper={"model.dropout": torch.tensor(0.0)})
    assert torch.equal(logits_with(at_zero), logits_with(Context()))
    at_half = keyed(0, [0, 1], hyper={"model.dropout": torch.tensor(0.5)})
    assert torch.equal(logits_with(at_half), logits_with(keyed(0, [0, 1])))


def test_the_rate_is_found_at_the_models_own_path() -> None:
    model = DROPPED.config.build(DROPPED.vocabulary, at="teacher")
    params, ids_BT = random_params(model.spec), ids(DROPPED)
    off = keyed(0, [0, 1], hyper={"teacher.dropout": torch.tensor(0.0), "model.dropout": torch.tensor(0.9)})
    assert torch.equal(model.apply(params, ids_BT, off)[0], model.apply(params, ids_BT, Context())[0])


@attrs.frozen
class Even:
    """A mixer that adds one number everywhere, so that a mask can be read off the stream."""

    number: float

    def build(self, width: int) -> Model:
        def apply(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
            return torch.full_like(x_BTD, self.number), {}

        return Model({}, apply, lambda *_: (), lambda params, x, memory, ctx: (apply(params, x, ctx)[0], memory))


def masks(seed: int, sample: int) -> list[Tensor]:
    """Return the masks of every mixer of every block."""
    config = Sequence(width=8, depth=2, pattern=(Even(1.0), Even(10.0)), dropout=0.5)  # type: ignore[arg-type]
    added: list[Tensor] = []

    def watch(block: Callable[..., Any]) -> Callable[..., Any]:
        def call(params: Tree, x_BTD: Tensor, ctx: Context) -> Any:
            y_BTD, extras = block(params, x_BTD, ctx)
            added.append((y_BTD - x_BTD).round())  # 2 and 20 where they are kept
            return y_BTD, extras

        return call

    model = config.build(11)
    with policy.using(wrap=watch):
        model.apply(random_params(model.spec), ids(DROPPED)[:1], keyed(seed, [sample]))
    return [mask for sum_BTD in added for mask in (sum_BTD % 20 == 2, sum_BTD >= 20)]


def test_every_place_step_and_sample_has_masks_of_its_own() -> None:
    drawn = [mask for seed in range(2) for sample in range(2) for mask in masks(seed, sample)]
    assert len(drawn) == 2 * 2 * 2 * 2  # seeds, samples, blocks, mixers
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) == len(drawn)
    share = torch.stack(drawn).double().mean()
    assert abs(float(share) - 0.5) < 5 * 0.5 / (len(drawn) * drawn[0].numel()) ** 0.5
    for a, b in zip(masks(1, 0), masks(1, 0), strict=True):
        assert torch.equal(a, b)


# the description


def test_mixers_are_named_by_their_kind() -> None:
    pattern = (Attention(heads=2), FeedForward(), Attention(heads=4), Recurrence(), Attention(heads=2))
    spec = Sequence(width=8, depth=1, pattern=pattern).build(5).spec
    assert set(spec["blocks"]) == {"attention", "feedforward", "attention2", "recurrence", "attention3"}
    assert all("norm" in part for part in spec["blocks"].values())


def test_the_head_is_there_unless_it_is_tied() -> None:
    assert "head" in Sequence(width=8).build(5).spec
    assert "head" not in Sequence(width=8, tied=True).build(5).spec


def test_the_operations_of_a_small_model_by_hand() -> None:
    config = Sequence(width=8, depth=3, pattern=(Attention(heads=2), FeedForward(expand=4.0)))
    spec = config.build(11).spec
    block = 4 * 8 * 8 + 2 * 8 * 32 + 2 * 8  # four projections, two products, two norms
    assert param.count(spec) == 11 * 8 + 3 * block + 8 + 8 * 11
    assert config.flops(spec, context=16) == 6 * (3 * block + 8 + 8 * 11) + 12 * 3 * 16 * 8
    tied = attrs.evolve(config, tied=True)
    assert tied.flops(tied.build(11).spec, context=16) == config.flops(spec, context=16)
    recurrent = attrs.evolve(config, pattern=(Recurrence(),))
    assert recurrent.flops(recurrent.build(11).spec, 16) == recurrent.flops(recurrent.build(11).spec, 32)


def test_the_default_model_has_the_leaves_that_it_always_had() -> None:
    spec = Sequence(width=8, depth=2).build(11).spec
    names = {path.split(".", 1)[-1] for path in tree.paths(spec) if path.startswith("blocks.")}
    assert names == {
        "attention.key", "attention.norm", "attention.out", "attention.query", "attention.value",
        "feedforward.norm", "feedforward.out", "feedforward.up",
    }  # fmt: skip
    assert {path for path in tree.paths(spec) if not path.startswith("blocks.")} == {"embed", "head", "norm"}
    total = sum(float(leaf.double().square().sum()) for leaf in tree.leaves(param.materialise(Sequence().build(65).spec, 0)))
    assert total == pytest.approx(DEFAULT_SQUARES, rel=1e-12)


def test_one_spread_for_every_matrix_and_less_for_what_is_added() -> None:
    config = Sequence(width=64, depth=3, pattern=(Attention(), FeedForward(bias=True)), positions=50, norm="layer", std=0.02)
    spec = config.build(101).spec
    for path, leaf in tree.named(param.materialise(spec, 0)).items():
        if tree.named(spec)[path].rank == 1:
            assert bool((leaf == (1.0 if path.endswith("scale") else 0.0)).all()), path
        else:
            expected = 0.02 / 6**0.5 if path.endswith(".out") else 0.02
            assert float(leaf.std()) == pytest.approx(expected, rel=0.05), path
    assert config.flops(spec, 16) == attrs.evolve(config, std=0.0).flops(spec, 16)


def test_learned_positions_are_looked_up_and_cost_nothing() -> None:
    for tied in (False, True):
        config = Sequence(width=8, depth=1, tied=tied)
        more = attrs.evolve(config, positions=100)
        assert more.flops(more.build(11).spec, 16) == config.flops(config.build(11).spec, 16)


def test_muon_leaves_learned_positions_to_adam() -> None:
    """They are rows that are looked up, as the embedding's are."""
    spec = TABLE["everything of GPT-2"].config.build(600).spec
    state = optim.Muon().build(spec, 0.1).init(param.materialise(spec, 0))
    matrices = {path for path in tree.paths(state) if "matrix" in path}
    assert matrices
    assert not [path for path in matrices if "embed" in path]


@pytest.mark.parametrize(
    "change",
    [{"positions": -1}, {"std": -0.1}, {"norm": "batch"}, {"width": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.1}],
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Sequence(**change)
