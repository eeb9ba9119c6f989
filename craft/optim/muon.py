"""Muon: momentum with its matrices made orthogonal. Jordan et al. 2024, kellerjordan.github.io/posts/muon.

Letters of this file: R rows and C columns of a matrix.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch

from craft import policy, tree
from craft.optim.moments import blend, check_complement
from craft.optim.quantised import check_bits, dequantise_tree, quantise_tree, zeros
from craft.types import Context, Tensor, Transform, Tree, Value, resolve

__all__ = ["MuonState", "orthogonalise", "scale_by_muon"]

_QUINTIC = (3.4445, -4.7750, 2.0315)


class MuonState(NamedTuple):
    """Running mean.

    Attributes
    ----------
    mean
        Running mean of the gradient, a tree like the parameters; with 8 bits its large leaves are `Quantised`.
    """

    mean: Tree


def orthogonalise(x_NRC: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of matrices close to one, singular vectors kept: Newton-Schulz iteration.

    The quintic polynomial is chosen for speed, not for its limit: singular values end between about 0.7 and 1.2. The
    products have the type `policy.current().compute`.

    Parameters
    ----------
    x_NRC
        One matrix, or a batch with any number of leading axes.
    steps
        Iterations.

    Returns
    -------
    Tensor of the same shape and type.

    References
    ----------
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon.
    """
    tall = x_NRC.shape[-2] > x_NRC.shape[-1]
    wide_NRC = x_NRC.mT if tall else x_NRC  # the Gram matrix of the shorter side is the smaller one
    unit_NRC = wide_NRC / torch.linalg.vector_norm(wide_NRC, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    y_NRC: Tensor = unit_NRC.to(policy.current().compute).reshape(-1, *wide_NRC.shape[-2:])
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram_NRR = y_NRC @ y_NRC.mT
        y_NRC = torch.baddbmm(y_NRC, torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c), y_NRC, beta=a)
    y_NRC = y_NRC.reshape(wide_NRC.shape).to(x_NRC.dtype)
    return y_NRC.mT if tall else y_NRC


def scale_by_muon(
    c: Value = 0.05,
    *,
    nesterov: bool = True,
    steps: int = 5,
    scaling: Literal["spectral", "rms"] = "spectral",
    bits: int = 32,
) -> Transform:
    """Replace the gradient of every matrix by its momentum made orthogonal.

    Matrices of equal shape, or of equal shape once transposed, are orthogonalised as one batched product. Leaves with
    more than two axes are batches of matrices.

    Parameters
    ----------
    c
        Complement of the momentum, 1 - momentum, in (0, 1].
    nesterov
        Whether to look one step ahead: blend the gradient into the new mean once more.
    steps
        Newton-Schulz iterations.
    scaling
        What an update of shape (in, out) is multiplied by (weights stand to the right: x @ w). `spectral` is
        sqrt(max(1, out / in)), by which every shape changes its output alike (Jordan et al.); `rms` is
        0.2 * sqrt(max(in, out)), by which the entries are as large as those of an AdamW update, so that its learning
        rates carry over (Liu et al.).
    bits
        Bits of a number in the running mean: 32, or 8 in blocks of 256 with a scale each; see `quantised`.

    Returns
    -------
    Transform with a `MuonState`.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1], the scaling is unknown, the bits are neither 32 nor 8, or a leaf is
        not a matrix.

    References
    ----------
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon;
    Liu et al. 2025, "Muon is scalable for LLM training", arXiv:2502.16982.
    """
    check_complement("c", c)
    check_bits(bits)
    if scaling not in ("spectral", "rms"):
        raise ValueError(f"got scaling={scaling!r}; expected 'spectral' or 'rms'")

    def init(params: Tree) -> MuonState:
        for path, leaf in tree.named(params).items():
            if leaf.ndim < 2:
                raise ValueError(f"{path or 'the leaf'} has shape {tuple(leaf.shape)}; Muon takes matrices: route it elsewhere")
        return MuonState(zeros(params, bits))

    def update(grads: Tree, state: MuonState, params: Tree, ctx: Context) -> tuple[Tree, MuonState]:
        near = resolve(c, ctx)
        mean = blend(dequantise_tree(state.mean, grads), grads, near)
        ahead = blend(mean, grads, near) if nesterov else mean
        return _orthogonal(ahead, steps, scaling), MuonState(quantise_tree(mean, bits))

    return Transform(init, update)


def _orthogonal(matrices: Tree, steps: int, scaling: str) -> Tree:
    values, structure = tree.flatten(matrices)
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, leaf in enumerate(values):
        groups.setdefault(tuple(sorted(leaf.shape[-2:])), []).append(place)
    done: dict[int, Tensor] = {}
    for places in groups.values():
        flat = [_flatter(values[place]) for place in places]
        parts = torch.split(orthogonalise(torch.cat(flat), steps), [part.shape[0] for part in flat])
        done.update(zip(places, parts, strict=True))
    return tree.unflatten(structure, [_restored(done[place], leaf, scaling) for place, leaf in enumerate(values)])


def _flatter(leaf: Tensor) -> Tensor:
    x_NRC = leaf.reshape(-1, *leaf.shape[-2:])
    return x_NRC.mT if leaf.shape[-2] > leaf.shape[-1] else x_NRC


def _restored(flat_NRC: Tensor, leaf: Tensor, scaling: str) -> Tensor:
    inner, outer = leaf.shape[-2:]
    factor = math.sqrt(max(1.0, outer / inner)) if scaling == "spectral" else 0.2 * math.sqrt(max(inner, outer))
    x_NRC = flat_NRC.mT if inner > outer else flat_NRC
    return (x_NRC * factor).reshape(leaf.shape).to(leaf.dtype)
