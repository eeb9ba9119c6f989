"""Keyed random numbers from a counter: Threefry-2x32 with 20 rounds.

Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (doi:10.1145/2063384.2063405). A key is
an int64 tensor of shape (..., 2) that holds two 32-bit words; leading axes are batches of keys. Every draw is a function
of (key, index of the element), in plain integer operations: `bits`, `uniform`, `bernoulli`, `integers` and `permute`
give the same bits eager, compiled, vmapped, on a CPU or a GPU; `normal` agrees within rounding. No generator is read.

Words are kept in int64 so that nothing overflows: signed overflow is undefined in compiled C++.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from craft.types import Tensor

__all__ = ["bernoulli", "bits", "fold_in", "integers", "key", "name_seed", "normal", "permute", "split", "threefry", "uniform"]

Words: TypeAlias = npt.NDArray[np.uint32]

_MASK = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_PIECE = 1 << 14
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key_N2: tuple[Tensor, Tensor], counter_N2: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Encrypt a 64-bit counter under a 64-bit key: Threefry-2x32-20.

    Parameters
    ----------
    key_N2, counter_N2
        Two int64 tensors each, of shapes that broadcast, with values in [0, 2**32).

    Returns
    -------
    Two int64 tensors with values in [0, 2**32).
    """
    words = (*key_N2, *counter_N2)
    if all(_at_hand(word) for word in words):
        return _threefry_at_hand(*words)
    if torch.compiler.is_compiling():  # the compiler may not know our operation
        return _threefry_in_passes(*words)
    x0, x1 = torch.ops.craft.threefry(*words)
    return x0, x1


_LIBRARY = torch.library.Library("craft", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("threefry(Tensor k0, Tensor k1, Tensor c0, Tensor c1) -> (Tensor, Tensor)")  # type: ignore[no-untyped-call]
"""One operation to whoever traces: the engine writes its twenty rounds as one expression."""


def _run(*words: Tensor) -> tuple[Tensor, Tensor]:
    return _threefry_at_hand(*words) if words[0].device.type == "cpu" else _threefry_in_passes(*words)


_LIBRARY.impl("threefry", _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


@torch.library.register_fake("craft::threefry", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shapes(*words: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(*(word.shape for word in words))  # type: ignore[no-untyped-call]
    return words[0].new_empty(shape), words[0].new_empty(shape)


@torch.library.register_vmap("craft::threefry", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _batched(info: object, axes: tuple[int | None, ...], *words: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    rank = max(word.ndim - (axis is not None) for word, axis in zip(words, axes, strict=True))

    def first(word: Tensor, axis: int | None) -> Tensor:
        """Move the batch to the front, and align the other axes at the end."""
        front = word[None] if axis is None else word.movedim(axis, 0)
        return front.reshape(front.shape[0], *([1] * (rank + 1 - front.ndim)), *front.shape[1:])

    found = torch.ops.craft.threefry(*(first(word, axis) for word, axis in zip(words, axes, strict=True)))
    return (found[0], found[1]), (0, 0)


def _threefry_in_passes(k0: Tensor, k1: Tensor, c0: Tensor, c1: Tensor) -> tuple[Tensor, Tensor]:
    schedule = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = c0 + k0, (c1 + k1) & _MASK
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x0 = x0 + x1  # grows by a bit a round at most: masked when the words are read
            x1 = (((x1 << turn) | (x1 >> (32 - turn))) ^ x0) & _MASK
        x0 = x0 + schedule[(block + 1) % 3]
        x1 = (x1 + schedule[(block + 2) % 3] + (block + 1)) & _MASK
    return x0 & _MASK, x1


def _at_hand(word: Tensor) -> bool:
    """Tell whether a tensor is plain numbers in memory, not one that is traced or batched."""
    return (
        type(word) is Tensor
        and word.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._functorch.is_functorch_wrapped_tensor(word)
    )


def _threefry_at_hand(*words: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same in 32-bit words that wrap, a cache's worth at a time: ten times as fast as 120 passes over memory."""
    arrays = np.broadcast_arrays(*(word.numpy() for word in words))
    shape, size = arrays[0].shape, arrays[0].size
    k0, k1, x0, x1 = (array.astype(np.uint32).reshape(size) for array in arrays)
    for first in range(0, size, _PIECE):
        piece = slice(first, first + _PIECE)
        _rounds(k0[piece], k1[piece], x0[piece], x1[piece])
    return torch.from_numpy(x0.astype(np.int64).reshape(shape)), torch.from_numpy(x1.astype(np.int64).reshape(shape))


def _rounds(k0: Words, k1: Words, x0: Words, x1: Words) -> None:
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(_PARITY))
    spare = np.empty_like(x0)
    x0 += k0
    x1 += k1
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x0 += x1
            np.right_shift(x1, np.uint32(32 - turn), out=spare)
            np.left_shift(x1, np.uint32(turn), out=x1)
            x1 |= spare
            x1 ^= x0
        x0 += schedule[(block + 1) % 3]
        x1 += schedule[(block + 2) % 3]
        x1 += np.uint32(block + 1)


def _words(value: Tensor) -> tuple[Tensor, Tensor]:
    return (value >> 32) & _MASK, value & _MASK


def key(seed: int | Tensor) -> Tensor:
    """Make a key of shape (2,) from a seed, an int or a 0-d int64 tensor; seeds differ in all 64 bits."""
    if not isinstance(seed, Tensor):
        seed = torch.tensor((seed + 2**63) % 2**64 - 2**63, dtype=torch.int64)
    return torch.stack(_words(seed), -1)


def fold_in(key_N2: Tensor, data: int | Tensor) -> Tensor:
    """Make a new key from a key and a number.

    Parameters
    ----------
    key_N2
        Key or keys, shape (..., 2).
    data
        An int, or int64 tensor whose shape broadcasts with the leading axes of the keys: one new key for each number.

    Returns
    -------
    Keys of shape (..., 2).
    """
    if not isinstance(data, Tensor):
        data = torch.full((), data, dtype=torch.int64, device=key_N2.device)
    return torch.stack(threefry((key_N2[..., 0], key_N2[..., 1]), _words(data)), -1)


def split(key_N2: Tensor, number: int) -> Tensor:
    """Make `number` keys of one: shape (..., number, 2)."""
    return fold_in(key_N2[..., None, :], torch.arange(number, device=key_N2.device))


def _draw(key_N2: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    count = math.prod(shape)
    index = torch.arange(count, device=key_N2.device)
    words = threefry((key_N2[..., 0, None], key_N2[..., 1, None]), _words(index))
    full = (*key_N2.shape[:-1], *shape)
    return words[0].reshape(full), words[1].reshape(full)


def bits(key_N2: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Draw 32 random bits an element: int64 in [0, 2**32), shape (*leading axes of the key, *shape)."""
    return _draw(key_N2, shape)[0]


def uniform(key_N2: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Draw float32 in [0, 1), multiples of 2**-24."""
    return (bits(key_N2, shape) >> 8).float() * 2.0**-24


def bernoulli(key_N2: Tensor, probability: float | Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Draw booleans that are true with the given probability (a number or a 0-d float32 tensor)."""
    return uniform(key_N2, shape) < probability


def integers(key_N2: Tensor, bound: int | Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Draw int64 in [0, bound), bound at most 2**31; the bias is below bound / 2**32."""
    return (bits(key_N2, shape) * bound) >> 32


def normal(key_N2: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Draw float32 standard normals (Box and Muller 1958); equal on two devices within rounding only."""
    first, second = _draw(key_N2, shape)
    radius = torch.sqrt(-2.0 * torch.log(((first >> 8).float() + 1.0) * 2.0**-24))
    return radius * torch.cos((second >> 8).float() * (2.0 * math.pi * 2.0**-24))


def permute(key_2: Tensor, index_N: Tensor, size: int, rounds: int = 32) -> Tensor:
    """Send each index in [0, size) to its place in a random permutation, without storing it: swap-or-not shuffle.

    Hoang, Morris and Rogaway 2012, "An enciphering scheme based on a card shuffle" (arXiv:1208.1176). A bijection for
    every size below 2**31.

    Parameters
    ----------
    key_2
        Key of shape (2,).
    index_N
        int64 indices in [0, size), any shape.
    size
        Number of things that are permuted.
    rounds
        Swaps; each halves what an index still says of its place.

    Returns
    -------
    int64 of the shape of `index_N`.

    Raises
    ------
    ValueError
        If `size` is not in [1, 2**31).
    """
    if not 1 <= size < 2**31:
        raise ValueError(f"got a permutation of {size} things; expected 1 to {2**31 - 1}")
    pivots = integers(fold_in(key_2, 0), size, (rounds,))
    k0, k1 = fold_in(key_2, 1)
    for turn in range(rounds):
        partner = (pivots[turn] - index_N) % size
        coin, _ = threefry((k0, k1), (torch.full_like(index_N, turn), torch.maximum(index_N, partner)))
        index_N = torch.where((coin & 1).bool(), partner, index_N)
    return index_N


def name_seed(seed: int, name: str) -> int:
    """Hash (seed, name) to 63 bits: the seed of a named leaf, that no other leaf's coming or going can move."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
