"""Moments of 8 bits in blocks of 256 with a scale each. Dettmers et al. 2022, arXiv:2110.02861.

A code is a power law in place of the paper's table, so that it is arithmetic a compiler can fuse: signed numbers (int8) are
scale * sign(c) * (c / 127)**2, those that are never negative (uint8) are scale * (c / 255)**4, whose root, by which Adam
divides, is again a square. Small numbers keep more digits than with even steps. A code of 0 does not occur in uint8: what is
not negative is rounded up from zero, since a mean square that vanished would blow an update up.

Letters of this file: N blocks, L numbers of one block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from craft import tree
from craft.types import Tensor, Tree

__all__ = [
    "BLOCK",
    "SMALLEST",
    "Quantised",
    "check_bits",
    "dequantise",
    "dequantise_tree",
    "quantise",
    "quantise_tree",
    "zeros",
]

BLOCK = 256
"""Numbers that share a scale."""
SMALLEST = 4096
"""Leaves of fewer numbers stay as they are: norms and biases, of which there are few and whose steps are delicate."""


class Quantised(NamedTuple):
    """A leaf in 8 bits.

    Attributes
    ----------
    code
        int8 for signed numbers, uint8 for those that are never negative; the shape of the leaf.
    scale
        Largest magnitude in each block of 256 numbers in row-major order, float32; the last block may be shorter.
    """

    code: Tensor
    scale: Tensor


def check_bits(bits: int) -> None:
    """Refuse a number of bits that there is no code for.

    Raises
    ------
    ValueError
        If it is neither 32 nor 8.
    """
    if bits not in (32, 8):
        raise ValueError(f"got bits={bits}; expected 32, or 8 for blocks of 256 numbers with a scale each")


def quantise(leaf: Tensor, signed: bool = True) -> Quantised:
    """Round a leaf to 8 bits, to the nearest code.

    Parameters
    ----------
    leaf
        Tensor of any shape and floating type.
    signed
        Whether there are negative numbers in it.

    Returns
    -------
    The leaf in about 1.02 bytes a number. Of a signed number u = |x| / scale the root is exact to 1/254; of another the
    fourth root is exact to 1/510, or the number is rounded up to scale / 255**4.
    """
    wide_NL = _blocks(leaf.float())
    scale_N = wide_NL.abs().amax(-1)
    share_NL = wide_NL / scale_N.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    if signed:
        code_NL = (share_NL.abs().sqrt() * 127).round().copysign(share_NL).to(torch.int8)
    else:
        code_NL = (share_NL.sqrt().sqrt() * 255).round().clamp(min=1).to(torch.uint8)
    return Quantised(_restored(code_NL, leaf), scale_N)


def dequantise(leaf: Quantised, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the numbers that a leaf in 8 bits stands for.

    Parameters
    ----------
    leaf
        What `quantise` returned.
    dtype
        Type of the result.

    Returns
    -------
    Tensor of the leaf's shape.
    """
    code_NL = _blocks(leaf.code).to(torch.float32)
    if leaf.code.dtype == torch.int8:
        share_NL = code_NL * code_NL.abs() * (1 / 127**2)
    else:
        share_NL = (code_NL * (1 / 255)).square().square()
    return _restored(share_NL * leaf.scale[:, None], leaf.code).to(dtype)


def _blocks(leaf: Tensor) -> Tensor:
    """Cut a leaf into blocks, (N, L), the last one filled up with zeros."""
    spare = -leaf.numel() % BLOCK
    flat = leaf.reshape(-1)
    return (functional.pad(flat, (0, spare)) if spare else flat).reshape(-1, BLOCK)


def _restored(x_NL: Tensor, leaf: Tensor) -> Tensor:
    flat = x_NL.reshape(-1)
    return (flat[: leaf.numel()] if leaf.numel() % BLOCK else flat).reshape(leaf.shape)


def quantise_tree(values: Tree, bits: int, signed: bool = True) -> Tree:
    """Round the leaves that are large enough to 8 bits; with 32 bits return the tree as it is.

    Parameters
    ----------
    values
        Tree of tensors.
    bits
        32 or 8.
    signed
        Whether there are negative numbers in it.

    Returns
    -------
    Tree with a `Quantised` in the place of each leaf of `SMALLEST` numbers or more.
    """
    if bits == 32:
        return values
    return tree.map(lambda leaf: quantise(leaf, signed) if leaf.numel() >= SMALLEST else leaf, values)


def zeros(params: Tree, bits: int, signed: bool = True) -> Tree:
    """Return what `quantise_tree` makes of zeros, without zeros in 32 bits and what is computed of them on the way.

    Parameters
    ----------
    params
        Tree of tensors.
    bits, signed
        As for `quantise_tree`.
    """

    def zero(leaf: Tensor) -> Tensor | Quantised:
        if bits == 32 or leaf.numel() < SMALLEST:
            return torch.zeros_like(leaf)
        code = torch.zeros_like(leaf, dtype=torch.int8) if signed else torch.ones_like(leaf, dtype=torch.uint8)
        return Quantised(code, leaf.new_zeros(-(-leaf.numel() // BLOCK), dtype=torch.float32))

    return tree.map(zero, params)


def dequantise_tree(stored: Tree, like: Tree) -> Tree:
    """Return the numbers of a tree, whichever of its leaves are in 8 bits.

    Parameters
    ----------
    stored
        What `quantise_tree` returned.
    like
        Tree of the same structure before that: it gives the types.

    Returns
    -------
    Tree of tensors.
    """
    return tree.map(lambda leaf, held: dequantise(held, leaf.dtype) if isinstance(held, Quantised) else held, like, stored)
