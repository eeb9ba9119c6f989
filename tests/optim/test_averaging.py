from __future__ import annotations

import pytest
import torch

from craft import optim, tree
from craft.types import Context

PARAMS = {"a": torch.arange(3.0), "b": [torch.ones(2, 2)]}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_equals_the_naive_loop(decay: float) -> None:
    transform = optim.chain(optim.scale_by_rate(0.1), optim.average(1.0 - decay))
    params, state = PARAMS, transform.init(PARAMS)
    naive = [leaf.double() for leaf in tree.leaves(PARAMS)]
    for step in range(1, 31):
        updates, state = transform.update(tree.map(torch.cos, params), state, params, Context())
        params = tree.map(torch.add, params, updates)
        kept = min(decay, (1 + step) / (10 + step))
        naive = [kept * mean + (1 - kept) * leaf for mean, leaf in zip(naive, tree.leaves(params), strict=True)]
    for mean, leaf in zip(naive, tree.leaves(optim.averaged(state)), strict=True):
        torch.testing.assert_close(leaf, mean.float())


def test_updates_pass_unchanged() -> None:
    transform = optim.average(0.1)
    updates, _ = transform.update(PARAMS, transform.init(PARAMS), PARAMS, Context())
    assert all(a is b for a, b in zip(tree.leaves(updates), tree.leaves(PARAMS), strict=True))


def test_found_however_nested() -> None:
    inner = optim.chain(optim.trace(), optim.chain(optim.identity(), optim.average(0.1)))
    transform = optim.route({"a": 0, "b": [0]}, ["all", "all"], {"all": inner})
    found = optim.averaged(transform.init(PARAMS))
    assert found is not None
    assert set(found) == {"a", "b.0"}


def test_absent_is_none() -> None:
    assert optim.averaged(optim.scale_by_adam().init(PARAMS)) is None


def test_two_averages_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2 averages"):
        optim.averaged(optim.chain(optim.average(0.1), optim.average(0.2)).init(PARAMS))
