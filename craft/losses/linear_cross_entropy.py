"""Cross-entropy of a product that never holds all logits.

The logits of one chunk of tokens are computed, judged and turned into gradients at once, before those of the next: the
derivative of a weighted mean is known but for one factor, which the backward pass multiplies by. Hsu et al. 2024,
arXiv:2410.10989, have the idea. Local letters: L, tokens of all samples in a row; N, tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._C import _functorch

from craft import nn, policy
from craft.losses.cross_entropy import COMPARE_LIMIT, cross_entropy, pick
from craft.nn import whole
from craft.types import Tensor

__all__ = ["CHUNK_BYTES", "linear_cross_entropy"]

CHUNK_BYTES = 2**24
"""Largest size of one chunk of logits, counted in float32: what the caches of a CPU hold."""
_WIDER = 16
"""How many times as large a chunk is elsewhere, where a few hundred small products would leave a GPU idle, and the head's
gradient would be read and written once for each; a quarter of that where memory is short."""


def linear_cross_entropy(
    features_BTD: Tensor, weight_DV: Tensor, targets_BT: Tensor, share_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weighted mean of the cross-entropy of the logits `features @ weight`.

    No forward mode and no second derivative, except with the policy's kernels `math`, which holds all logits.

    Parameters
    ----------
    features_BTD
        What the head multiplies, in the type of the activations.
    weight_DV
        The head; cast to the type of the features. Over several chunks its gradient is summed in float32 at least.
    targets_BT
        Token ids, int64.
    share_BT
        Share of each target in the mean.

    Returns
    -------
    The mean in nats, 0-d, float32 at least; and which targets got the highest logit, bool (B, T).
    """
    if policy.current().kernels == "math":
        logits_BTV = nn.linear(features_BTD, weight_DV)
        mean = (cross_entropy(logits_BTV, targets_BT) * share_BT).sum()
        return mean, logits_BTV.detach().argmax(-1) == targets_BT
    kernel: Any = whole.judged if torch.compiler.is_compiling() else judged
    mean, hits_L = kernel(features_BTD.flatten(0, -2), weight_DV, targets_BT.flatten(), share_BT.flatten())
    return mean, hits_L.reshape(targets_BT.shape)


@whole.kernel
def judged(features_LD: Tensor, weight_DV: Tensor, targets_L: Tensor, share_L: Tensor) -> Any:
    """Return the mean and the hits; gradients are computed only where something will ask for them."""
    wanted = torch.is_grad_enabled() and any(_followed(x) for x in (features_LD, weight_DV, share_L))
    return _Judged.apply(features_LD, weight_DV, targets_L, share_L, wanted)[:2]  # type: ignore[no-untyped-call]


def _largest(device: torch.device) -> int:
    """Return the bytes of a chunk on a device."""
    if device.type == "cpu":
        return CHUNK_BYTES
    return CHUNK_BYTES * (_WIDER // 4 if policy.current().rematerialise else _WIDER)


def _followed(x: Tensor) -> bool:
    """Say whether the tape or a gradient of torch.func, at any depth of transforms, follows a tensor."""
    while not x.requires_grad and _functorch.is_functorch_wrapped_tensor(x):
        x = _functorch.get_unwrapped(x)
    return x.requires_grad


def _judge(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nats, the hits, and the logarithms of the probabilities."""
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    logs_NV = logits_NV.log_softmax(-1)
    return -pick(logs_NV, targets_N), logits_NV.argmax(-1) == targets_N, logs_NV


def _slope(logs_NV: Tensor, targets_N: Tensor, share_N: Tensor) -> Tensor:
    """Return the derivative of the mean with respect to the logits: (probability - one at the target) times the share."""
    share_N1 = share_N[:, None]
    if logs_NV.shape[-1] > COMPARE_LIMIT:
        return (logs_NV.exp() * share_N1).scatter_add(-1, targets_N[:, None], -share_N1)
    hit = targets_N[:, None] == torch.arange(logs_NV.shape[-1], device=logs_NV.device)
    return (logs_NV.exp() - hit.to(logs_NV.dtype)) * share_N1


def _at_once(x_LD: Tensor, weight_DV: Tensor, targets_L: Tensor, share_L: Tensor, wanted: bool) -> tuple[Tensor, ...]:
    """Return nats, hits, and the gradients for features and weight (empty where none is wanted)."""
    used_DV = weight_DV.to(x_LD.dtype)
    nats_L, hits_L, logs_LV = _judge(x_LD @ used_DV, targets_L)
    if not wanted:
        return nats_L, hits_L, x_LD.new_empty(0), weight_DV.new_empty(0)
    slope_LV = _slope(logs_LV, targets_L, share_L).to(x_LD.dtype)
    return nats_L, hits_L, slope_LV @ used_DV.mT, x_LD.mT @ slope_LV


def _by_chunks(
    x_LD: Tensor, weight_DV: Tensor, targets_L: Tensor, share_L: Tensor, wanted: bool, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do the same chunk after chunk. To a compiler it is one call: unrolled, it would take minutes to compile."""
    # what stays is made before what goes, which then leaves no hole
    nats_L, hits_L, slopes_LD, sum_DV = _room(x_LD, weight_DV, targets_L, share_L, wanted, number)
    total_DV = torch.zeros_like(sum_DV, dtype=share_L.dtype)
    used_DV = weight_DV.to(x_LD.dtype)
    length, turned = -(-x_LD.shape[0] // number), total_DV.stride(0) == 1  # the table of an embedding is a head turned
    for start in range(0, x_LD.shape[0], length):
        part = slice(start, start + length)
        nats_L[part], hits_L[part], work_NV = _judge(x_LD[part] @ used_DV, targets_L[part])
        if wanted:  # the slope of the logits, in the memory of their logarithms
            share_N1 = share_L[part, None]
            work_NV.exp_().mul_(share_N1).scatter_add_(1, targets_L[part, None], -share_N1)
            work_NV = work_NV.to(x_LD.dtype)
            slopes_LD[part] = work_NV @ used_DV.mT
            total_DV += (work_NV.mT @ x_LD[part]).mT if turned else x_LD[part].mT @ work_NV
        del work_NV  # before the next chunk's are made
    return nats_L, hits_L, slopes_LD, sum_DV.copy_(total_DV)


def _room(
    x_LD: Tensor, weight_DV: Tensor, targets_L: Tensor, share_L: Tensor, wanted: bool, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    slopes_LD, total_DV = (torch.empty_like(x, dtype=x_LD.dtype) if wanted else x_LD.new_empty(0) for x in (x_LD, weight_DV))
    return torch.empty_like(share_L), torch.empty_like(targets_L, dtype=torch.bool), slopes_LD, total_DV


def _each(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Take one trial after the other, so that a pack holds one chunk, too."""
    made = [
        _CHUNKS(*(x if dim is None else x.movedim(dim, 0)[k] for x, dim in zip(args, in_dims, strict=True)))
        for k in range(info.batch_size)
    ]
    return tuple(torch.stack(parts) for parts in zip(*made, strict=True)), (0, 0, 0, 0)


_SCHEMA = "(Tensor x, Tensor weight, Tensor targets, Tensor share, bool wanted, int number) -> (Tensor, Tensor, Tensor, Tensor)"
# not by torch.library.custom_op, whose first call imports the compiler
_LIBRARY = torch.library.Library("craft", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("judge_chunks" + _SCHEMA)  # type: ignore[no-untyped-call]
_LIBRARY.impl("judge_chunks", _by_chunks, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("craft::judge_chunks", _room, lib=_LIBRARY)
torch.library.register_vmap("craft::judge_chunks", _each, lib=_LIBRARY)
_CHUNKS = torch.ops.craft.judge_chunks.default


class _Judged(torch.autograd.Function):
    """Mean and hits; then the gradients of the mean with respect to features, weight and shares."""

    generate_vmap_rule = True

    @staticmethod
    def forward(features_LD: Tensor, weight_DV: Tensor, targets_L: Tensor, share_L: Tensor, wanted: bool) -> tuple[Tensor, ...]:
        wide_L = share_L.to(torch.float64 if features_LD.dtype == torch.float64 else torch.float32)
        number = -(-features_LD.shape[0] * weight_DV.shape[-1] * 4 // _largest(features_LD.device))
        if number > 1:
            made = _CHUNKS(features_LD, weight_DV, targets_L, wide_L, wanted, number)
        else:
            made = _at_once(features_LD, weight_DV, targets_L, wide_L, wanted)
        nats_L, hits_L, *slopes = made
        return (nats_L * wide_L).sum(), hits_L, *slopes, nats_L.to(share_L.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        features, weight, _, share, _ = inputs
        ctx.save_for_backward(features, weight, share, *output[2:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, share = _JudgedBack.apply(*ctx.saved_tensors, grad)  # type: ignore[no-untyped-call]
        return features, weight, None, share, None


class _JudgedBack(torch.autograd.Function):
    """The derivative, which has none itself: the gradients are constants to it, and would be so without a word."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        features: Tensor, weight: Tensor, share: Tensor, of_features: Tensor, of_weight: Tensor, of_share: Tensor, grad: Tensor
    ) -> tuple[Tensor, ...]:
        pairs = ((of_features, features), (of_weight, weight), (of_share, share))
        return tuple((x.to(like.dtype) * grad).to(like.dtype) for x, like in pairs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError('the loss by chunks has no second derivative; take it within policy.using(kernels="math")')
