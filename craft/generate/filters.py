"""From logits to the next token: penalties, truncations and the draw, all on rows of logits.

Top-p is nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751), min-p of Nguyen et al. 2024, arXiv:2407.01082, the
repetition penalty of Keskar et al. 2019, arXiv:1909.05858.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch

from craft import rng
from craft.errors import UsageError
from craft.types import Tensor

__all__ = ["Sampling", "choose"]


def _between(low: float, high: float) -> Any:
    def check(instance: Any, attribute: Any, value: float) -> None:
        if not low <= value <= high:
            raise UsageError(f"got {attribute.name}={value}; expected a number from {low:g} to {high:g}")

    return check


@attrs.frozen
class Sampling:
    """How the next token is drawn."""

    temperature: float = attrs.field(default=0.8, validator=_between(0.0, 100.0))
    """Divides the logits: below 1 bolder, above 1 wilder; 0 always takes the likeliest token."""
    top_k: int = attrs.field(default=0, validator=_between(0, 10**9))
    """Draw among the k likeliest tokens; 0: all."""
    top_p: float = attrs.field(default=1.0, validator=_between(0.0, 1.0))
    """Draw among the likeliest tokens that together reach this probability; 1: all."""
    min_p: float = attrs.field(default=0.0, validator=_between(0.0, 1.0))
    """Leave out tokens below this share of the likeliest one's probability; 0: none."""
    repetition_penalty: float = attrs.field(default=1.0, validator=_between(0.01, 100.0))
    """Makes tokens that were seen less likely; 1: no penalty."""
    seed: int = 0
    """Seed of the draw: the same one writes the same text."""


def choose(logits_BV: Tensor, seen_BV: Tensor, config: Sampling, key_2: Tensor) -> Tensor:
    """Draw the next token of each row.

    Parameters
    ----------
    logits_BV
        Logits, float32.
    seen_BV
        Whether a token was in the text so far.
    config
        How to draw.
    key_2
        Random key of this position.

    Returns
    -------
    Ids, int64 of shape (B,).
    """
    device = logits_BV.device
    logits_BV, seen_BV, key_2 = logits_BV.cpu(), seen_BV.cpu(), key_2.cpu()  # not every device has float64
    logits_BV = _penalise(logits_BV, seen_BV, config.repetition_penalty)
    if config.temperature == 0.0:
        return logits_BV.argmax(-1).to(device)
    below_BV = logits_BV.double() - logits_BV.amax(-1, keepdim=True)  # a tiny temperature must not make them infinite
    probability_BV = _truncate((below_BV / config.temperature).softmax(-1), config)
    # the largest of log p plus Gumbel noise is a draw from p, and needs no cumulative sums
    noise_BV = -torch.log(-torch.log((rng.bits(key_2, probability_BV.shape).double() + 0.5) / 2**32))
    return (probability_BV.log() + noise_BV).argmax(-1).to(device)


def _penalise(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    if penalty == 1.0:
        return logits_BV
    less_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, less_BV, logits_BV)


def _truncate(probability_BV: Tensor, config: Sampling) -> Tensor:
    """Set to zero what top-k, top-p and min-p leave out; the likeliest token always stays."""
    ordered_BV = probability_BV.sort(-1, descending=True).values
    least_B1 = ordered_BV[:, :1] * config.min_p
    if 0 < config.top_k < probability_BV.shape[-1]:
        least_B1 = torch.maximum(least_B1, ordered_BV[:, config.top_k - 1 : config.top_k])
    if config.top_p < 1.0:
        before_BV = ordered_BV.cumsum(-1) - ordered_BV
        kept_BV = ordered_BV.masked_fill((before_BV >= config.top_p) & (before_BV > 0), math.inf)
        least_B1 = torch.maximum(least_B1, kept_BV.amin(-1, keepdim=True))
    return torch.where(probability_BV >= least_B1, probability_BV, 0.0)
