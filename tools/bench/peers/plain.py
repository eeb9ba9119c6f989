"""The plain PyTorch loop: nn.Module, autocast, fused AdamW, scaled_dot_product_attention, with and without torch.compile.

GPT-2 of Radford et al. 2019; the optimiser's settings and the recipe are nanoGPT's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor, nn

from tools.bench.beat import Beat
from tools.bench.peers import recipe
from tools.bench.setup import Setup

__all__ = ["GPT", "load", "nats", "optimiser", "quality", "train"]


class GPT(nn.Module):
    """GPT-2 with a head tied to the embedding; `forward` returns logits (B, T, V)."""

    def __init__(self, *, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.lnf = nn.LayerNorm(width)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return the logits of the next tokens."""
        x_BTD = self.dropout(self.wte(ids_BT) + self.wpe(torch.arange(ids_BT.shape[1], device=ids_BT.device)))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.lnf(x_BTD), self.wte.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.qkv(self.ln1(x_BTD)).chunk(3, -1))
        rate = self.rate if self.training else 0.0
        y_BHTE = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        x_BTD = x_BTD + self.dropout(self.proj(y_BHTE.transpose(1, 2).flatten(-2)))
        hidden = F.gelu(self.fc(self.ln2(x_BTD)), approximate="tanh")
        return x_BTD + self.dropout(self.out(hidden))


def load(setup: Setup, dropout: float = 0.0) -> GPT:
    """Build the model of a case with the shared initial weights."""
    case = setup.case
    model = GPT(
        vocabulary=case.vocabulary,
        context=case.context,
        width=case.width,
        depth=case.depth,
        heads=case.heads,
        dropout=dropout,
    )
    given = setup.material.weights()
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in named.items():
            array = torch.from_numpy(given[name] if name in given else given[name.removesuffix(".weight")])
            value.copy_(array.T if isinstance(_owner(model, name), nn.Linear) and array.dim() == 2 else array)
    return model.to(setup.device)


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def optimiser(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    """Make the AdamW that all contestants use: decay for what has two axes or more."""
    wide = [value for value in model.parameters() if value.dim() > 1]
    flat = [value for value in model.parameters() if value.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": wide, "weight_decay": 0.1}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)


def nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


class _Loop:
    """Forward, backward, clip, update: what a user writes down."""

    def __init__(self, setup: Setup, dropout: float = 0.0) -> None:
        torch.set_num_threads(setup.threads)
        torch.manual_seed(setup.options.get("seed", 0))
        self.device, self.bf16 = setup.device, setup.bf16
        self.model = load(setup, dropout)
        self.optimiser = optimiser(self.model)
        self.call: Any = torch.compile(self.model) if setup.contestant.variant == "compiled" else self.model

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return nats(self.call(inputs_BT), targets_BT)

    def update(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        loss = self.loss(inputs_BT, targets_BT)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.detach()


def train(setup: Setup, beat: Beat) -> None:
    """Train on the shared batches until the parent says stop."""
    loop = _Loop(setup)
    ids = torch.from_numpy(setup.material.batches()).to(setup.device)
    batches = [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in ids]
    beat.start(parameters=sum(value.numel() for value in loop.model.parameters()))
    done = 0
    while True:
        loss = loop.update(*batches[done % len(batches)])
        done += 1
        beat(loss.item)


def quality(setup: Setup) -> dict[str, Any]:
    """Follow nanoGPT's recipe to a validation loss; see `recipe.follow`."""
    loop = _Loop(setup, setup.options["dropout"])

    def update(done: int, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        for group in loop.optimiser.param_groups:
            group["lr"] = recipe.rate(done, setup.options["updates"])
        loop.update(inputs_BT, targets_BT)

    def judge(inputs_BT: Tensor, targets_BT: Tensor) -> float:
        loop.model.eval()
        loss = float(loop.loss(inputs_BT, targets_BT))
        loop.model.train()
        return loss

    return recipe.follow(setup, update, judge)
