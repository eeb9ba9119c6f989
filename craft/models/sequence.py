"""The model of sequences of tokens: embedding, blocks of mixers, head. It serves every family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import attrs
import torch

from craft import nn, param, policy, rng, tree
from craft.config import choice, fraction, tunable
from craft.mixers import Attention, FeedForward, Mixer
from craft.param import Constant, Normal, Param
from craft.types import Context, Extras, Model, Tensor, Tree, hyper, resolve

__all__ = ["Memory", "Sequence"]


class Memory(NamedTuple):
    """What every mixer keeps, by block and name, and how many positions each row has seen."""

    blocks: Tree
    position_B: Tensor


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
    norm: Literal["rms", "layer"] = choice("rms", "rms", "layer")
    """Norm before each mixer and the head: rms, by root mean square; layer, LayerNorm with scale and bias."""
    positions: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Learned position embeddings: the longest sequence, in tokens; 0: none, and sequences of any length."""
    std: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """Standard deviation of every matrix at first, as GPT-2 has it: less in the projections that add to the stream, by the
    square root of their number; 0: each matrix by its own width, projections and head zero."""
    tuned_width: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Width at which the learning rate was chosen: at another one, steps and a tied head are scaled so that it stays the best
    (muP, arXiv:2203.03466); 0: nothing is scaled."""

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
        A Model whose `apply` maps ids (B, T) to logits (B, T, V), float32 at least. With learned positions it refuses longer
        sequences and larger memories by a ValueError.
        """
        names = _names(self.pattern)
        parts = {name: mixer.build(self.width) for name, mixer in zip(names, self.pattern, strict=True)}
        return _build(self, _spec(self, vocabulary, parts), parts, hyper(f"{at}.dropout", self.dropout))

    def flops(self, spec: Tree, context: int) -> float:
        """Count the floating-point operations of training on one token: 6N + 12LTD over the attention mixers.

        Kaplan et al. 2020, arXiv:2001.08361. The embeddings' rows are looked up, not multiplied, and do not count.
        """
        looked_up = ("position_embed",) if self.tied else ("embed", "position_embed")
        attentions = self.depth * sum(isinstance(mixer, Attention) for mixer in self.pattern)
        return 6.0 * param.count(spec, without=looked_up) + 12.0 * attentions * context * self.width


def _names(pattern: tuple[Mixer, ...]) -> list[str]:
    """Name each mixer by its kind, numbered where a kind comes again: attention, feedforward, attention2."""
    kinds = [type(mixer).__name__.lower() for mixer in pattern]
    return [kind if kinds[:i].count(kind) == 0 else f"{kind}{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]


def _rms(x_BTD: Tensor, scale_D: Tree) -> Tensor:
    return nn.rms_norm(x_BTD, scale_D)


def _layer(x_BTD: Tensor, params: Tree) -> Tensor:
    return nn.layer_norm(x_BTD, params["scale"], params["bias"])


_NORMS: dict[str, Callable[[Tensor, Tree], Tensor]] = {"rms": _rms, "layer": _layer}


def _spec(config: Sequence, vocabulary: int, parts: dict[str, Model]) -> Tree:
    scale, bias = (Param((config.width,), Constant(number), ("D",)) for number in (1.0, 0.0))
    norm = {"rms": scale, "layer": {"scale": scale, "bias": bias}}[config.norm]
    table = Normal((config.tuned_width or config.width) ** -0.5 if config.tied else 1.0)
    spec = {
        "embed": Param((vocabulary, config.width), table, ("V", "D")),
        "blocks": param.stack({name: {"norm": norm, **part.spec} for name, part in parts.items()}, config.depth),
        "norm": norm,
    }
    if config.positions:
        spec["position_embed"] = Param((config.positions, config.width), table, ("T", "D"))
    if not config.tied:
        spec["head"] = Param((config.width, vocabulary), Constant(), ("D", "V"))
    spec = _even(spec, config.std, config.depth * len(parts)) if config.std else spec
    return tree.map(lambda one: _wider(one, _growth(config)), spec)


def _growth(config: Sequence) -> float:
    return config.width / config.tuned_width if config.tuned_width else 1.0


def _wider(one: Param, growth: float) -> Param:
    """Tell a matrix how much its inputs grew; those of tables are tokens or positions, and do not."""
    return attrs.evolve(one, growth=growth) if one.rank == 2 and one.axes[-2] not in ("V", "T") else one


def _even(spec: Tree, std: float, added: int) -> Tree:
    """Give every matrix the same spread, and less to the projections, of which `added` are added to the stream."""

    def init(path: str, one: Param) -> Param:
        spread = std / math.sqrt(added) if path.startswith("blocks.") and path.endswith(".out") else std
        return attrs.evolve(one, init=Normal(spread)) if one.rank > 1 else one

    return tree.unflatten(tree.flatten(spec)[1], [init(path, one) for path, one in tree.named(spec).items()])


def _build(config: Sequence, spec: Tree, parts: dict[str, Model], rate: Any) -> Model:
    norm, growth = _NORMS[config.norm], _growth(config)

    def block(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        extras: Extras = {}
        for place, (name, part) in enumerate(parts.items()):
            y_BTD, more = part.apply(params[name], norm(x_BTD, params[name]["norm"]), ctx)
            if config.dropout and ctx.key is not None:
                y_BTD = nn.dropout(y_BTD, resolve(rate, ctx), rng.fold_in(ctx.key, place))
            x_BTD = x_BTD + y_BTD
            extras.update({f"{name}.{key}": value for key, value in more.items()})
        return x_BTD, extras

    piece = policy.region(block)

    def fits(length: int) -> None:
        if config.positions and length > config.positions:
            raise ValueError(
                f"got a sequence of {length} tokens for a model with {config.positions} learned positions; "
                "shorten the context, or give the model more positions"
            )

    def stream(params: Tree, ids_BT: Tensor, position_BT: Tensor | slice) -> Tensor:
        wide = params["embed"].dtype == torch.float64
        x_BTD = nn.embed(ids_BT, params["embed"], torch.float64 if wide else policy.current().compute)
        return x_BTD + params["position_embed"][position_BT].to(x_BTD.dtype) if config.positions else x_BTD

    def features(params: Tree, ids_BT: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        fits(ids_BT.shape[1])
        x_BTD, extras = stream(params, ids_BT, ctx.layout.position_BT if ctx.layout else slice(ids_BT.shape[1])), {}
        for depth, part in enumerate(tree.unstack(params["blocks"])):
            inner = ctx if ctx.key is None or not config.dropout else ctx._replace(key=rng.fold_in(ctx.key, depth))
            x_BTD, more = piece(part, x_BTD, inner)
            extras.update({f"blocks.{depth}.{key}": value for key, value in more.items()})
        return norm(x_BTD, params["norm"]), extras

    def head(params: Tree) -> Tensor:
        if not config.tied:
            return params["head"]  # type: ignore[no-any-return]
        weight_DV: Tensor = params["embed"].transpose(-1, -2)
        return weight_DV if growth == 1 else weight_DV / growth  # the table's steps are those of an embedding

    def logits(params: Tree, y_BTD: Tensor) -> Tensor:
        logits_BTV = nn.linear(y_BTD, head(params))
        return logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()

    def apply(params: Tree, ids_BT: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        y_BTD, extras = features(params, ids_BT, ctx)
        return logits(params, y_BTD), extras

    def memory(batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Memory:
        fits(capacity)
        kept = [
            {name: part.memory(batch, capacity, dtype, device) for name, part in parts.items()} for _ in range(config.depth)
        ]
        return Memory(kept, torch.zeros(batch, dtype=torch.int64, device=device))

    def advance(params: Tree, ids_BT: Tensor, memory: Memory, ctx: Context) -> tuple[Tensor, Memory]:
        position_BT = memory.position_B[:, None] + torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTD, after = stream(params, ids_BT, position_BT), []
        for part_params, part_memory in zip(tree.unstack(params["blocks"]), memory.blocks, strict=True):
            kept = {}
            for name, part in parts.items():
                inner = norm(x_BTD, part_params[name]["norm"])
                y_BTD, kept[name] = part.advance(part_params[name], inner, part_memory[name], ctx)
                x_BTD = x_BTD + y_BTD
            after.append(kept)
        return logits(params, norm(x_BTD, params["norm"])), Memory(after, memory.position_B + ids_BT.shape[1])

    return Model(spec, apply, memory, advance, features, head)
