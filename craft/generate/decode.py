"""Decoding: one token after another through a model's memory, whatever family it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from craft import rng, tree
from craft.generate.filters import Sampling, choose
from craft.param import Param
from craft.types import Context, Model, Tensor, Tree

__all__ = ["decode", "laid_out", "one_token"]


def laid_out(params: Tree, spec: Tree, dtype: torch.dtype) -> Tree:
    """Prepare parameters for reading one position at a time: cast once, matrices in the order in which a row is multiplied.

    Parameters
    ----------
    params
        The model's tensors.
    spec
        The model's spec.
    dtype
        Type of the matrices from here on; vectors stay.

    Returns
    -------
    A tree of the same shapes and, but for rounding, the same values.
    """

    def prepare(leaf: Tensor, one: Param) -> Tensor:
        if one.rank < 2 or leaf.dtype == torch.float64:
            return leaf
        looked_up = one.axes[-2] in ("V", "T")  # rows are taken out of these
        return leaf.to(dtype) if looked_up else leaf.to(dtype).mT.contiguous().mT

    return tree.map(prepare, params, spec)


def one_token(model: Model) -> Callable[[Tree, Tensor, Tree], Tensor]:
    """Make the function that decoding calls again and again: it reads one position and writes into the memory it is given.

    Parameters
    ----------
    model
        The model.

    Returns
    -------
    (params, ids (B, 1), memory) -> logits (B, V): what is worth compiling.
    """

    def read(params: Tree, ids_B1: Tensor, memory: Tree) -> Tensor:
        logits_B1V, after = model.advance(params, ids_B1, memory, Context())
        tree.map(lambda old, new: old.copy_(new), memory, after)
        return logits_B1V[:, 0]

    return read


def decode(
    model: Model,
    params: Tree,
    prompt_BT: Tensor,
    *,
    vocabulary: int,
    context: int,
    sampling: Sampling,
    advance: Callable[..., Any] | None = None,
    token: Callable[[Tree, Tensor, Tree], Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Write on from a prompt, without end: take as many as you want.

    A memory holds `context` positions. When it is full the second half of the text is read again into an empty one, so
    that the text can be of any length and the model never sees more than it was trained on.

    Parameters
    ----------
    model, params
        The model and its tensors.
    prompt_BT
        Token ids, int64, at least one; of more than `context` only the last are read.
    vocabulary
        Number of different tokens.
    context
        Longest sequence that the model is trained on, in tokens.
    sampling
        How the next token is drawn.
    advance
        A program of `model.advance`; none: the function itself.
    token
        A program of `one_token(model)`, that reads what comes after the prompt; none: `advance` does.
    dtype
        Type of the memory.

    Yields
    ------
    Ids of the next position, int64 of shape (B,).
    """
    step = advance or model.advance
    seen_BV = torch.zeros(prompt_BT.shape[0], vocabulary, dtype=torch.bool, device=prompt_BT.device)
    seen_BV.scatter_(1, prompt_BT, value=True)
    key = rng.key(sampling.seed).to(prompt_BT.device)
    text_BT, unread, room, memory = prompt_BT[:, -context:], prompt_BT[:, -context:], 0, None
    count = 0
    while True:
        if unread.shape[1] > room:
            if memory is not None:
                text_BT = text_BT[:, -max(1, context // 2) :]
                unread = text_BT
            memory = model.memory(prompt_BT.shape[0], context, dtype, prompt_BT.device)
            room = context
        if token is not None and unread.shape[1] == 1:
            logits_BV = token(params, unread, memory)
        else:
            logits_BTV, memory = step(params, unread, memory, Context())
            logits_BV = logits_BTV[:, -1]
        room -= unread.shape[1]
        next_B = choose(logits_BV, seen_BV, sampling, rng.fold_in(key, count))
        seen_BV = seen_BV.scatter(1, next_B[:, None], value=True)
        yield next_B
        count += 1
        unread = next_B[:, None]
        text_BT = torch.cat((text_BT, unread), 1)[:, -context:]
