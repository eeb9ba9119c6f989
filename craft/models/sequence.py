"""The model of sequences of tokens: embedding, blocks of mixers, head. It serves every family."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from craft import nn, param, policy, rng
from craft.config import fraction, tunable
from craft.mixers import Attention, FeedForward, Mixer
from craft.param import Constant, Normal, Param
from craft.types import Context, Extras, Model, Tensor, Tree, hyper, resolve

__all__ = ["Sequence"]


@attrs.frozen
class Sequence:
    """A stack of mixers over a stream of tokens, each behind a norm and added to the stream."""

    width: int = attrs.field(default=128, validator=attrs.validators.ge(1))
    """Features of the stream."""
    pattern: tuple[Mixer, ...] = (Attention(), FeedForward())
    """Mixers of one block, in order."""
    depth: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    """Number of blocks."""
    dropout: float = tunable(0.0, validator=fraction)
    """Share of each mixer's output that is dropped in training; 0 leaves dropout out of the program."""
    tied: bool = False
    """Whether the head is the embedding's own table."""

    def build(self, vocabulary: int, at: str = "model") -> Model:
        """Make the model for token ids below `vocabulary`.

        Parameters
        ----------
        vocabulary
            Number of different tokens.
        at
            Configuration path of this value: where its hyperparameters are found in a run's state.

        Returns
        -------
        A Model whose `apply` maps ids (B, T) to logits (B, T, V), float32 at least.
        """
        names = _names(self.pattern)
        parts = {name: mixer.build(self.width) for name, mixer in zip(names, self.pattern, strict=True)}
        return _build(self, vocabulary, parts, hyper(f"{at}.dropout", self.dropout))

    def flops(self, spec: Tree, context: int) -> float:
        """Count the floating-point operations of training on one token: 6N + 12LTD over the attention mixers.

        Kaplan et al. 2020, arXiv:2001.08361. The embedding's rows are looked up, not multiplied, and do not count.
        """
        looked_up = () if self.tied else ("embed",)
        attentions = self.depth * sum(isinstance(mixer, Attention) for mixer in self.pattern)
        return 6.0 * param.count(spec, without=looked_up) + 12.0 * attentions * context * self.width


def _names(pattern: tuple[Mixer, ...]) -> list[str]:
    """Name each mixer by its kind, numbered where a kind comes again: attention, feedforward, attention2."""
    kinds = [type(mixer).__name__.lower() for mixer in pattern]
    return [kind if kinds[:i].count(kind) == 0 else f"{kind}{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]


def _build(config: Sequence, vocabulary: int, parts: dict[str, Model], rate: Any) -> Model:
    scale = Param((config.width,), Constant(1.0), ("D",))
    block_spec = {name: {"norm": scale, **part.spec} for name, part in parts.items()}
    spec = {
        "embed": Param((vocabulary, config.width), Normal(config.width**-0.5 if config.tied else 1.0), ("V", "D")),
        "blocks": [block_spec] * config.depth,
        "norm": scale,
    }
    if not config.tied:
        spec["head"] = Param((config.width, vocabulary), Constant(), ("D", "V"))

    def block(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        extras: Extras = {}
        for place, (name, part) in enumerate(parts.items()):
            y_BTD, more = part.apply(params[name], nn.rms_norm(x_BTD, params[name]["norm"]), ctx)
            if config.dropout and ctx.key is not None:
                y_BTD = nn.dropout(y_BTD, resolve(rate, ctx), rng.fold_in(ctx.key, place))
            x_BTD = x_BTD + y_BTD
            extras.update({f"{name}.{key}": value for key, value in more.items()})
        return x_BTD, extras

    piece = policy.region(block)

    def head(params: Tree, x_BTD: Tensor) -> Tensor:
        table = params["embed"].transpose(-1, -2) if config.tied else params["head"]
        logits_BTV = nn.linear(nn.rms_norm(x_BTD, params["norm"]), table)
        return logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()

    def stream(params: Tree, ids_BT: Tensor) -> Tensor:
        wide = params["embed"].dtype == torch.float64
        return nn.embed(ids_BT, params["embed"], torch.float64 if wide else policy.current().compute)

    def apply(params: Tree, ids_BT: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        x_BTD, extras = stream(params, ids_BT), {}
        for depth, part in enumerate(params["blocks"]):
            inner = ctx if ctx.key is None or not config.dropout else ctx._replace(key=rng.fold_in(ctx.key, depth))
            x_BTD, more = piece(part, x_BTD, inner)
            extras.update({f"blocks.{depth}.{key}": value for key, value in more.items()})
        return head(params, x_BTD), extras

    def memory(batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tree:
        return [
            {name: part.memory(batch, capacity, dtype, device) for name, part in parts.items()} for _ in range(config.depth)
        ]

    def advance(params: Tree, ids_BT: Tensor, memory: Tree, ctx: Context) -> tuple[Tensor, Tree]:
        x_BTD, after = stream(params, ids_BT), []
        for part_params, part_memory in zip(params["blocks"], memory, strict=True):
            kept = {}
            for name, part in parts.items():
                inner = nn.rms_norm(x_BTD, part_params[name]["norm"])
                y_BTD, kept[name] = part.advance(part_params[name], inner, part_memory[name], ctx)
                x_BTD = x_BTD + y_BTD
            after.append(kept)
        return head(params, x_BTD), after

    return Model(spec, apply, memory, advance)
