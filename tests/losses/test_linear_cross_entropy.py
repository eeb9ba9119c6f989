"""The loss by chunks equals the plain one under every transform, and really holds no more than a chunk of logits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from craft import grad, losses, models, param, policy, rng, tree
from craft.engine.program import compile_function
from craft.losses import linear_cross_entropy
from craft.types import Batch, Context, Tensor, Tree

CHUNKED = sys.modules["craft.losses.linear_cross_entropy"]
K = 3
LIMIT = losses.COMPARE_LIMIT
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}
"""Of the largest number of each result; bfloat16 keeps 8 bits, and its logits are rounded in both forms."""

CASES = {
    "one chunk, compared": (11, 2**24),
    "one chunk, gathered": (LIMIT + 1, 2**24),
    "chunks, compared": (11, 4 * 11 * 3),  # 14 tokens, 3 at most in a chunk: five chunks, the last shorter
    "chunks, gathered": (LIMIT + 1, 4 * (LIMIT + 1) * 4),
    "a chunk for each token": (11, 1),
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.fixture
def most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Put the largest chunk of a case in force."""
    monkeypatch.setattr(CHUNKED, "CHUNK_BYTES", request.param)
    return int(request.param)


chunked = pytest.mark.parametrize(("vocabulary", "most"), CASES.values(), ids=CASES.keys(), indirect=["most"])


def draw(vocabulary: int, dtype: torch.dtype = torch.float64, seed: int = 0, lead: tuple[int, ...] = ()) -> tuple[Tensor, ...]:
    """Make features, head (in float32 where features are lower), targets and shares, some of them zero."""
    source = torch.Generator().manual_seed(seed)
    features = torch.randn(*lead, 2, 7, 6, generator=source, dtype=torch.float64).to(dtype)
    weight = torch.randn(*lead, 6, vocabulary, generator=source, dtype=torch.float64)
    targets = torch.randint(vocabulary, (*lead, 2, 7), generator=source)
    share = torch.rand(*lead, 2, 7, generator=source) * (torch.rand(*lead, 2, 7, generator=source) > 0.3)
    wide = torch.promote_types(dtype, torch.float32)
    return features, weight.to(wide), targets, share.to(wide)


def value(*args: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply the mean, so that the upstream factor counts."""
    mean, hits_BT = linear_cross_entropy(*args)
    return 1.7 * mean, hits_BT


def plain(*args: Tensor) -> tuple[Tensor, Tensor]:
    with policy.using(kernels="math"):
        return value(*args)


def slopes(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.func.grad_and_value(function, (0, 1, 3), has_aux=True)


def close(ours: Tree, theirs: Tree, tolerance: float = 1e-10) -> None:
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = max(1e-3, float(b.double().abs().max()))  # what is zero by its nature (a key's bias) is rounding alone
        torch.testing.assert_close(a.double() / scale, b.double() / scale, rtol=tolerance, atol=tolerance)


@chunked
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_values_hits_and_gradients_equal_the_plain_form(vocabulary: int, most: int, dtype: torch.dtype) -> None:
    args = draw(vocabulary, dtype)
    (ours, (mean, hits)), (theirs, (expected, found)) = slopes(value)(*args), slopes(plain)(*args)
    assert torch.equal(hits, found)
    assert [leaf.dtype for leaf in ours] == [args[0].dtype, args[1].dtype, args[3].dtype]
    close((mean, ours), (expected, theirs), TOLERANCE[dtype])
    exact = [x.double() if x.is_floating_point() else x for x in args]
    for leaf, reference in zip((mean, *ours), (slopes(plain)(*exact)[1][0], *slopes(plain)(*exact)[0]), strict=True):
        close(leaf.double(), reference.double(), TOLERANCE[dtype])


@chunked
def test_the_tape_gives_the_same(vocabulary: int, most: int) -> None:
    args = draw(vocabulary)
    leaves = [x.clone().requires_grad_() for x in (args[0], args[1], args[3])]
    mean, hits = value(leaves[0], leaves[1], args[2], leaves[2])
    grads = torch.autograd.grad(mean, leaves)
    expected, (number, found) = slopes(plain)(*args)
    close((grads, mean.detach()), (expected, number))
    assert torch.equal(hits, found)


@chunked
def test_packs(vocabulary: int, most: int) -> None:
    stacked = draw(vocabulary, lead=(K,))
    alone = [slopes(plain)(*(x[k] for x in stacked)) for k in range(K)]
    expected = tree.stack(alone)
    close(torch.func.vmap(slopes(value))(*stacked)[0], expected[0])
    close(torch.func.vmap(slopes(value))(*stacked)[1][0], expected[1][0])
    assert torch.equal(torch.func.vmap(slopes(value))(*stacked)[1][1], expected[1][1])
    total = torch.func.grad(lambda f, w, t, s: torch.func.vmap(value)(f, w, t, s)[0].sum(), (0, 1, 3))
    close(total(*stacked), expected[0])


@chunked
@pytest.mark.parametrize("shared", range(4))
def test_packs_that_share_something(vocabulary: int, most: int, shared: int) -> None:
    """What is not stacked is the same for every trial; so is all but one."""
    stacked = list(draw(vocabulary, lead=(K,)))
    for own in ({0, 1, 2, 3} - {shared}, {shared}):
        dims = tuple(0 if place in own else None for place in range(4))
        args = [x if place in own else x[0] for place, x in enumerate(stacked)]
        ours = torch.func.vmap(slopes(value), in_dims=dims)(*args)
        each = [slopes(plain)(*(x if dim is None else x[k] for x, dim in zip(args, dims, strict=True))) for k in range(K)]
        expected = tree.stack(each)
        close((ours[0], ours[1][0]), (expected[0], expected[1][0]))
        assert torch.equal(ours[1][1], expected[1][1])


@chunked
def test_packs_of_packs(vocabulary: int, most: int) -> None:
    stacked = draw(vocabulary, lead=(2, K))
    ours = torch.func.vmap(torch.func.vmap(slopes(value), in_dims=0), in_dims=0)(*stacked)[0]
    close(ours, torch.func.vmap(torch.func.vmap(slopes(plain)))(*stacked)[0])


@chunked
@pytest.mark.parametrize("packed", [False, True])
def test_traced_as_the_engine_traces(vocabulary: int, most: int, packed: bool) -> None:
    args = draw(vocabulary, lead=(K,) if packed else ())
    run = torch.func.vmap(slopes(value)) if packed else slopes(value)
    with torch.no_grad():
        graph = make_fx(lambda *x: tree.leaves(run(*x)), tracing_mode="fake")(*args)
        close(list(graph(*args))[:4], tree.leaves(run(*args))[:4])
    calls = sum("judge_chunks" in str(node.target) for node in graph.graph.nodes)
    chunks = 14 * vocabulary * 4 > most
    assert calls == chunks * (K if packed else 1)


@chunked
@pytest.mark.parametrize("form", ["grad", "vmap of grad", "grad of vmap", "no gradient"])
def test_compiled_by_dynamo(vocabulary: int, most: int, form: str) -> None:
    args = draw(vocabulary, lead=() if form in ("grad", "no gradient") else (K,))
    function = {
        "grad": slopes(value),
        "vmap of grad": torch.func.vmap(slopes(value)),
        "grad of vmap": torch.func.grad(lambda *x: torch.func.vmap(value)(*x)[0].sum(), (0, 1, 3)),
        "no gradient": value,
    }[form]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    close([x.double() for x in tree.leaves(compiled(*args))], [x.double() for x in tree.leaves(function(*args))])


def test_compiled_by_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered to machine code, in bfloat16, the head being the transposed table of a tied model."""
    monkeypatch.setattr(CHUNKED, "CHUNK_BYTES", 4 * 11 * 3)
    features, weight, targets, share = draw(11, torch.bfloat16)
    table = weight.T.contiguous()
    run = lambda f, w, t, s: slopes(value)(f, w.T, t, s)  # noqa: E731
    close(
        compile_function(run, features, table, targets, share)(features, table, targets, share)[0],
        run(features, table, targets, share)[0],
        1e-6,
    )


@chunked
def test_without_a_gradient_only_the_forward_is_computed(vocabulary: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are counted: one a chunk forward, three with gradients."""
    args = draw(vocabulary)
    chunks = -(-14 // -(-14 // max(1, -(-14 * vocabulary * 4 // most))))

    def products(run: Callable[[], Any]) -> int:
        with torch.profiler.profile() as seen:
            run()
        return sum(event.count for event in seen.key_averages() if event.key == "aten::mm")

    followed = [x.clone().requires_grad_() if x.is_floating_point() else x for x in args]
    assert products(lambda: value(*args)) == chunks
    with torch.no_grad():
        assert products(lambda: value(*followed)) == chunks
        assert (
            products(lambda: torch.func.vmap(value, in_dims=(None, None, 0, None))(*args[:2], args[2][None], args[3])) == chunks
        )
    assert products(lambda: value(*followed)) == 3 * chunks
    with torch.no_grad():
        assert products(lambda: slopes(value)(*args)) == 3 * chunks
    close(value(*args)[0], plain(*args)[0])


@chunked
def test_a_second_derivative_is_refused_by_name(vocabulary: int, most: int) -> None:
    args = draw(vocabulary)

    def directional(features: Tensor) -> Any:
        return torch.func.grad(lambda f: value(f, *args[1:])[0])(features).square().sum()

    with pytest.raises(RuntimeError, match=r'loss by chunks has no second derivative; .* policy\.using\(kernels="math"\)'):
        torch.func.grad(directional)(args[0])
    leaf = args[0].clone().requires_grad_()
    first = torch.autograd.grad(value(leaf, *args[1:])[0], leaf, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="loss by chunks has no second derivative"):
        first.square().sum().backward()
    with policy.using(kernels="math"):
        assert float(torch.func.grad(directional)(args[0]).abs().sum()) > 0


@chunked
def test_forward_mode_is_refused_and_not_silently_zero(vocabulary: int, most: int) -> None:
    args = draw(vocabulary)
    run = lambda f: value(f, *args[1:])[0]  # noqa: E731
    with pytest.raises(RuntimeError, match="forward mode AD"):
        torch.func.jvp(run, (args[0],), (args[0],))
    with policy.using(kernels="math"):
        slope = torch.func.jvp(run, (args[0],), (args[0],))[1]
    close(slope, (torch.func.grad(run)(args[0]) * args[0]).sum())


@chunked
def test_huge_logits_and_no_targets_are_safe(vocabulary: int, most: int) -> None:
    features, weight, targets, share = draw(vocabulary, torch.float32)
    for args in ((features * 1e4, weight, targets, share), (features, weight, targets, share * 0)):
        close(slopes(value)(*args)[0], slopes(plain)(*args)[0], 1e-5)
        assert all(bool(leaf.isfinite().all()) for leaf in slopes(value)(*args)[0])


def test_the_gradient_of_the_head_is_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four thousand chunks of one equal token: a sum in bfloat16 would stop growing after 256 of them."""
    monkeypatch.setattr(CHUNKED, "CHUNK_BYTES", 1)
    number = 4000
    features = torch.ones(1, number, 1, dtype=torch.bfloat16)
    args = torch.zeros(1, 2), torch.zeros(1, number, dtype=torch.int64), torch.full((1, number), 1 / 1024)
    slope = torch.func.grad(lambda w: linear_cross_entropy(features, w, *args[1:])[0])(args[0])
    torch.testing.assert_close(slope, torch.tensor([[-0.5, 0.5]]) * number / 1024)
    assert slope.dtype == torch.float32


def test_the_call_of_the_compiler_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and types that are promised are those that come, and nothing that is given is written."""
    features, weight, targets, share = draw(11, torch.float32)
    for wanted in (False, True):
        for head in (weight, weight.T.contiguous().T):
            args = features.flatten(0, 1), head, targets.flatten(), share.flatten(), wanted, 5
            torch.library.opcheck(
                torch.ops.craft.judge_chunks.default,
                args,
                test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_static"),
            )


# the loss of a model

IDS = torch.randint(2000, (2, 2, 9), generator=torch.Generator().manual_seed(0))
BATCH = Batch(IDS[0], IDS[1], torch.tensor([[1.0] * 9, [1.0] * 4 + [0.0] * 5]), torch.tensor([3, 8]))
MODELS = {
    "tied": models.gpt2(width=8, depth=1, heads=2, context=9),
    "with a head": models.llama(width=8, depth=1, heads=2, expand=2.0),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tape", [False, True])
@pytest.mark.parametrize("rematerialised", [False, True])
def test_the_loss_of_a_model_is_that_of_its_logits(
    name: str, tape: bool, rematerialised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CHUNKED, "CHUNK_BYTES", 4 * 2000 * 4)
    model = MODELS[name].build(2000)
    source = torch.Generator().manual_seed(1)
    params = tree.cast(param.materialise(model.spec, 0), torch.float64)
    params = tree.map(lambda x: x + 0.3 * torch.randn(x.shape, generator=source, dtype=x.dtype), params)
    ctx = Context(rng.key(0))
    whole = grad.reverse(losses.next_token(model._replace(features=None, head=None)))(params, BATCH, ctx)
    with torch.no_grad(), policy.using(tape=tape):
        ours = grad.reverse(losses.next_token(model), rematerialised)(params, BATCH, ctx)
    assert tree.paths(ours) == tree.paths(whole)
    close(ours, whole)
    with torch.no_grad():
        close(losses.next_token(model)(params, BATCH, ctx)[0], whole[1]["loss"])


def test_the_loss_of_a_model_with_parts_never_asks_for_its_logits() -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("all logits were asked for")

    model = MODELS["tied"].build(2000)
    params = param.materialise(model.spec, 0)
    expected = losses.next_token(model)(params, BATCH, Context())
    close(losses.next_token(model._replace(apply=refuse))(params, BATCH, Context()), expected, 0.0)
    with pytest.raises(AssertionError, match="all logits"):
        losses.next_token(model._replace(apply=refuse, head=None))(params, BATCH, Context())


# memory

PEAK = """
import re, sys, torch
from craft import losses, policy
torch.set_num_threads(1)
kernels, how, tokens = *sys.argv[1:3], int(sys.argv[3])
source = torch.Generator().manual_seed(0)
features = torch.randn(1, 4096, 64, generator=source).requires_grad_()
weight = (torch.randn(64, 32000, generator=source) / 8).requires_grad_()
targets = torch.randint(32000, (1, 4096), generator=source)
share = torch.full((1, 4096), 1 / 4096)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def run(features, weight, share):
    with policy.using(kernels=kernels):
        return losses.linear_cross_entropy(features, weight, targets[:, : features.shape[1]], share)[0]

def work(number):
    args = features[:, :number], weight, share[:, :number]
    if how == "tape":
        torch.autograd.grad(run(*args), (features, weight))
    elif how == "func":
        torch.func.grad(run, (0, 1))(*(x.detach() for x in args))
    else:
        with torch.no_grad():
            run(*args)

work(8)  # libraries and their buffers
before = peak()
work(tokens)
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("how", ["tape", "func", "evaluation"])
def test_the_peak_of_memory_is_a_chunk_and_not_all_logits(how: str) -> None:
    """4096 tokens of 32000: all logits are 500 MB in float32; the plain form passes 1000 MB with half the tokens."""

    def megabytes(kernels: str, tokens: int) -> float:
        command = [sys.executable, "-c", PEAK, kernels, how, str(tokens)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert megabytes("auto", 4096) < 300
    if how == "tape":
        assert megabytes("math", 2048) > 1000
