from __future__ import annotations

from typing import Any

import pytest
import torch

from craft import optim
from craft.types import Context


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16), (3, 16, 24), (2, 3, 24, 8)])
def test_singular_values_are_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(optim.orthogonalise(100.0 * normal(*shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_singular_vectors_are_kept() -> None:
    x_RC = normal(12, 20)
    left, _, right = torch.linalg.svd(x_RC, full_matrices=False)
    middle = left.mT @ optim.orthogonalise(x_RC) @ right.mT
    torch.testing.assert_close(middle, torch.diag(torch.diagonal(middle)), rtol=0.0, atol=1e-4)


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert torch.equal(optim.orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_each_leaf_is_as_if_it_were_alone() -> None:
    grads = {"a": normal(4, 6, seed=1), "b": normal(6, 4, seed=2), "c": normal(2, 4, 6, seed=3), "d": normal(5, 5, seed=4)}
    transform = optim.scale_by_muon()
    together, _ = transform.update(grads, transform.init(grads), grads, Context())
    for name, grad in grads.items():
        alone, _ = transform.update(grad, transform.init(grad), grad, Context())
        torch.testing.assert_close(together[name], alone, rtol=1e-5, atol=1e-5)


def test_equal_shapes_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    original = torch.baddbmm

    def spy(*args: Any, **more: Any) -> torch.Tensor:
        shapes.append(tuple(args[2].shape))
        return original(*args, **more)

    monkeypatch.setattr(torch, "baddbmm", spy)
    grads = {"a": normal(4, 6), "b": normal(6, 4), "c": normal(2, 4, 6), "d": normal(5, 5)}
    transform = optim.scale_by_muon(steps=1)
    transform.update(grads, transform.init(grads), grads, Context())
    assert sorted(set(shapes)) == [(1, 5, 5), (4, 4, 4), (4, 4, 6)]


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gain has shape \(4,\); Muon takes matrices"):
        optim.scale_by_muon().init({"gain": torch.zeros(4)})


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'spectral' or 'rms'"):
        optim.scale_by_muon(scaling="other")  # type: ignore[arg-type]
