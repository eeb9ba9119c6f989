"""Several documents in a sample are as good as each alone: same loss, same gradient, eager, vmapped and compiled."""

import pytest
import torch

from craft import grad, losses, models, param, policy, tree
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.types import Batch, Context, Layout, Tree

SIZES = (11, 30, 7)
TIME = 64
MODELS = {
    "attention": Sequence(width=16, depth=2, pattern=(Attention(heads=2), FeedForward())),
    "unbounded": Sequence(width=16, depth=1, pattern=(Attention(heads=2, normed=False, groups=1), FeedForward())),
    "recurrence": Sequence(width=16, depth=1, pattern=(Recurrence(), FeedForward(), Attention(heads=2))),
    "gpt2": models.gpt2(width=16, depth=1, heads=2, context=TIME),
}
DRAW = torch.Generator().manual_seed(0)
DOCUMENTS = [torch.randint(9, (size + 1,), generator=DRAW) for size in SIZES]


def packed(rows: int = 1) -> Batch:
    """Put all documents into each row, with padding behind them."""
    inputs, targets, position, document = (torch.zeros(TIME, dtype=torch.int64) for _ in range(4))
    weights, at = torch.zeros(TIME), 0
    document -= 1
    for number, ids in enumerate(DOCUMENTS):
        inside = slice(at, at + len(ids) - 1)
        inputs[inside], targets[inside], weights[inside] = ids[:-1], ids[1:], 1.0
        position[inside], document[inside] = torch.arange(len(ids) - 1), number
        at += len(ids) - 1
    position[at:] = torch.arange(TIME - at)
    row = Batch(inputs, targets, weights, torch.zeros((), dtype=torch.int64), Layout(position, document))
    many: Batch = tree.map(lambda leaf: torch.stack([leaf] * rows), row)
    return many


def apart(loss, params: Tree):
    """Return the mean loss over all targets of the documents, each alone in its batch."""
    total = 0.0
    for ids in DOCUMENTS:
        one = Batch(ids[None, :-1], ids[None, 1:], torch.ones(1, len(ids) - 1), torch.zeros(1, dtype=torch.int64))
        total = total + loss(params, one, Context())[0] * (len(ids) - 1)
    return total / sum(SIZES)


@pytest.mark.parametrize("kernels", ["auto", "math"])
@pytest.mark.parametrize("name", list(MODELS))
def test_packed_documents_equal_each_alone(name, kernels):
    model = MODELS[name].build(9)
    loss = losses.next_token(model)
    params = tree.map(lambda p: p + 0.3 * torch.randn(p.shape, generator=DRAW), param.materialise(model.spec, 0))
    with policy.using(kernels=kernels):
        grads, value = torch.func.grad_and_value(lambda p: loss(p, packed(), Context())[0])(params)
        expected, alone = torch.func.grad_and_value(lambda p: apart(loss, p))(params)
    torch.testing.assert_close(value, alone, rtol=1e-5, atol=1e-6)
    for path, leaf in tree.named(grads).items():
        torch.testing.assert_close(leaf, tree.named(expected)[path], rtol=1e-4, atol=1e-6, msg=path)


@pytest.mark.parametrize("name", ["attention", "recurrence"])
def test_packed_documents_vmap_and_compile(name):
    model = MODELS[name].build(9)
    grad_fn = grad.reverse(losses.next_token(model))
    params, batch = param.materialise(model.spec, 1), packed(rows=2)

    def gradient(p):
        return grad_fn(p, batch, Context())[0]

    alone = gradient(params)
    pack = torch.func.vmap(gradient)(tree.stack([params, param.materialise(model.spec, 2)]))
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")(params)
    for path, leaf in tree.named(alone).items():
        torch.testing.assert_close(tree.named(pack)[path][0], leaf, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(tree.named(compiled)[path], leaf, rtol=1e-4, atol=1e-6)
