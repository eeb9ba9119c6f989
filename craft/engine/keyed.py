"""The keyed random numbers of `rng` in the compiler's terms: twenty rounds as one expression instead of 120 tensors."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

__all__ = ["know_threefry"]

_MASK, _PARITY = 0xFFFFFFFF, 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


@cache
def know_threefry() -> None:
    """Teach the compiler `craft::threefry`; see `rng.threefry`."""
    from torch._inductor.ir import Pointwise
    from torch._inductor.lowering import broadcast_tensors, register_lowering

    @register_lowering(torch.ops.craft.threefry.default, type_promotion_kind=None)
    def lower(*words: Any) -> tuple[Any, Any]:
        words = broadcast_tensors(*words)
        loaders = [word.make_loader() for word in words]

        def word(number: int) -> Any:
            def inner(index: Any) -> Any:
                return _rounds(*(load(index) for load in loaders))[number]

            shape = list(words[0].get_size())
            return Pointwise.create(device=words[0].get_device(), dtype=torch.int64, inner_fn=inner, ranges=shape)

        return word(0), word(1)


def _rounds(k0: Any, k1: Any, c0: Any, c1: Any) -> tuple[Any, Any]:
    from torch._inductor.virtualized import ops

    def constant(number: int) -> Any:
        return ops.constant(number, torch.int64)

    mask = constant(_MASK)
    schedule = (k0, k1, ops.bitwise_xor(ops.bitwise_xor(k0, k1), constant(_PARITY)))
    x0, x1 = ops.add(c0, k0), ops.bitwise_and(ops.add(c1, k1), mask)
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x0 = ops.add(x0, x1)
            left, right = ops.bitwise_left_shift(x1, constant(turn)), ops.bitwise_right_shift(x1, constant(32 - turn))
            x1 = ops.bitwise_and(ops.bitwise_xor(ops.bitwise_or(left, right), x0), mask)
        x0 = ops.add(x0, schedule[(block + 1) % 3])
        x1 = ops.bitwise_and(ops.add(ops.add(x1, schedule[(block + 2) % 3]), constant(block + 1)), mask)
    return ops.bitwise_and(x0, mask), x1
