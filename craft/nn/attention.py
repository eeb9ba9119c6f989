"""Causal attention in three forms that agree: plain, by pairs of chunks, and fused. Vaswani et al. 2017, arXiv:1706.03762.

`math` is plain operations: every transform of torch.func works on it. `pairs` cuts time into C chunks and takes the
C(C+1)/2 causal (query chunk, key chunk) pairs as one batched product, with a derivative written by hand that saves only
the exponentials: on CPUs it is 2-3 times as fast as the fused kernel. `fused` is torch's own, the fastest on GPUs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from craft import policy
from craft.nn import whole
from craft.types import Tensor

__all__ = ["attend", "attend_documents", "attend_fused", "attend_math", "attend_pairs"]


def attend(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, bounded: bool = False) -> Tensor:
    """Causal attention over one sequence, by the kernel that suits the device and the policy.

    Parameters
    ----------
    q_BHTE, k_BHTE, v_BHTE
        Queries, keys and values of equal shape.
    bounded
        Promise that scores stay below about 60 (normalised queries and keys): the row maximum need not be subtracted.

    Returns
    -------
    Tensor of the shape and type of `q_BHTE`.
    """
    if policy.current().kernels == "math":
        return attend_math(q_BHTE, k_BHTE, v_BHTE)
    if q_BHTE.device.type == "cpu":
        return attend_pairs(q_BHTE, k_BHTE, v_BHTE, bounded)
    return attend_fused(q_BHTE, k_BHTE, v_BHTE)


def attend_documents(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, document_BT: Tensor, bounded: bool = False) -> Tensor:
    """Causal attention within documents: a position sees those before it that have the same number; else as `attend`."""
    if policy.current().kernels != "math" and q_BHTE.device.type == "cpu":
        return attend_pairs(q_BHTE, k_BHTE, v_BHTE, bounded, document_BT)
    row = torch.arange(q_BHTE.shape[-2], device=q_BHTE.device)
    mask_B1TT = (row[:, None] >= row) & (document_BT[:, None, :, None] == document_BT[:, None, None, :])
    if policy.current().kernels == "math":
        return attend_math(q_BHTE, k_BHTE, v_BHTE, mask_B1TT)
    return functional.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, attn_mask=mask_B1TT)


def attend_math(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask_TS: Tensor | None = None) -> Tensor:
    """Attention in plain operations; causal unless a mask (true: may be seen; broadcasts to B, H, T, S) is given."""
    score = (q_BHTE * q_BHTE.shape[-1] ** -0.5) @ k_BHSE.transpose(-1, -2)
    score = score if score.dtype == torch.float64 else score.float()
    if mask_TS is None:
        row = torch.arange(score.shape[-2], device=score.device)
        mask_TS = row[:, None] >= row[None, : score.shape[-1]]
    share: Tensor = score.masked_fill(~mask_TS, -math.inf).softmax(-1)
    return share.to(v_BHSE.dtype) @ v_BHSE


def attend_fused(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
    """Causal attention by torch's fused kernel; no forward mode, no second derivative."""
    return functional.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, is_causal=True)


def attend_pairs(
    q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, bounded: bool = False, document_BT: Tensor | None = None
) -> Tensor:
    """Causal attention by pairs of chunks, within documents where these are given; no forward mode, no second derivative."""
    *lead, time, width = q_BHTE.shape
    chunks = _chunks(time)
    bounded = bounded and q_BHTE.dtype != torch.float16  # whose sums of exponentials would overflow
    cut = (*lead, chunks, time // chunks, width)
    q, k, v = (x.reshape(cut) for x in (q_BHTE * width**-0.5, k_BHTE, v_BHTE))
    document = None if document_BT is None else document_BT.reshape(*document_BT.shape[:-1], 1, chunks, time // chunks, 1)
    kernel = whole.pairs if torch.compiler.is_compiling() else pairs
    out: Tensor = kernel(q, k, v, bounded, document)
    return out.reshape(q_BHTE.shape)


@whole.kernel
def pairs(q: Tensor, k: Tensor, v: Tensor, bounded: bool, document: Tensor | None = None) -> Tensor:
    """Attention over chunks, (..., C, N, E) each, with scaled queries; of documents (..., C, N, 1)."""
    return _Pairs.apply(q, k, v, bounded, document)[0]  # type: ignore[no-untyped-call, no-any-return]


def _chunks(time: int) -> int:
    """Two chunks skip a quarter of the work, four three eighths; more only lengthen the program."""
    for chunks, least in ((4, 1024), (2, 32)):
        if time >= least and time % chunks == 0:
            return chunks
    return 1


def _causal(chunks: int) -> tuple[list[int], list[int]]:
    pairs = [(i, j) for i in range(chunks) for j in range(i + 1)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _gather(x: Tensor, index: list[int]) -> Tensor:
    """Take chunks by number: (..., C, N, E) -> (..., P, N, E)."""
    return x if x.shape[-3] == 1 else torch.stack([x[..., i, :, :] for i in index], -3)


def _per_chunk(x: Tensor, owner: list[int], reduce: Any) -> Tensor:
    """Reduce the pairs that belong to each chunk: (..., P, N, E) -> (..., C, N, E)."""
    if x.shape[-3] == 1:
        return x
    groups = [[x[..., p, :, :] for p, o in enumerate(owner) if o == c] for c in range(max(owner) + 1)]
    return torch.stack([reduce(torch.stack(g, 0)) if len(g) > 1 else g[0] for g in groups], -3)


def _sum(x: Tensor) -> Tensor:
    return x.sum(0)


def _largest(x: Tensor) -> Tensor:
    return x.amax(0)


def _visible(length: int, queries: list[int], keys: list[int], device: torch.device) -> Tensor:
    """Mask of each pair, (P, N, N): a triangle on the diagonal, everything below it."""
    row = torch.arange(length, device=device)
    free = torch.stack([torch.full((), 0 if i == j else length, device=device) for i, j in zip(queries, keys, strict=True)])
    return row[:, None] + free[:, None, None] >= row


class _Pairs(torch.autograd.Function):
    """q (scaled), k, v: (..., C, N, E) -> output, exponentials and reciprocals of their row sums."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bounded: bool, document: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys = _causal(q.shape[-3])
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        score = (_gather(q, queries) @ _gather(k, keys).transpose(-1, -2)).to(wide)
        visible = _visible(q.shape[-2], queries, keys, q.device)
        if document is not None:
            visible = visible & (_gather(document, queries) == _gather(document, keys).transpose(-1, -2))
        if not bounded:
            top = score.masked_fill(~visible, -math.inf).amax(-1, keepdim=True)
            score = score - _gather(_per_chunk(top, queries, _largest), queries)
        power = torch.where(visible, score.exp(), 0.0).to(q.dtype)
        total = _per_chunk(power.to(wide).sum(-1, keepdim=True), queries, _sum)
        share = 1 / total
        out = _per_chunk((power @ _gather(v, keys)).to(wide), queries, _sum) * share
        return out.to(q.dtype), power, share

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3], *output)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return *_PairsBack.apply(*ctx.saved_tensors, grad), None, None  # type: ignore[no-untyped-call]


class _PairsBack(torch.autograd.Function):
    """The derivative, which has none itself: the exponentials are constants to it, and would be so without a word."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, power: Tensor, share: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        queries, keys = _causal(q.shape[-3])
        slope = grad.to(share.dtype) * share
        shift = -(slope * out.to(share.dtype)).sum(-1, keepdim=True)
        slope = _gather(slope.to(q.dtype), queries)
        flow = slope @ _gather(v, keys).transpose(-1, -2)
        score = (power.to(share.dtype) * (flow.to(share.dtype) + _gather(shift, queries))).to(q.dtype)
        wide = share.dtype
        dq = _per_chunk((score @ _gather(k, keys)).to(wide), queries, _sum).to(q.dtype)
        dk = _per_chunk((score.transpose(-1, -2) @ _gather(q, queries)).to(wide), keys, _sum).to(q.dtype)
        dv = _per_chunk((power.transpose(-1, -2) @ slope).to(wide), keys, _sum).to(q.dtype)
        return dq, dk, dv

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError('attention by pairs has no second derivative; take it within policy.using(kernels="math")')
