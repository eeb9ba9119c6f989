"""The shapes that are measured, and how many floating-point operations they take."""

from __future__ import annotations

import attrs

__all__ = ["CASES", "GPU_CASES", "Case"]


@attrs.frozen
class Case:
    """A GPT-2 and its batch: learned positions, LayerNorm, biases, GELU (tanh form), a head tied to the embedding."""

    name: str
    """What it is called in tables and on the command line."""
    depth: int
    """Number of blocks."""
    width: int
    """Features of the stream."""
    heads: int
    """Attention heads."""
    context: int = 256
    """Length of one sample, tokens."""
    batch: int = 12
    """Samples of one update."""
    vocabulary: int = 65
    """Number of different tokens."""
    burst: int = 4
    """Updates of one turn."""

    @property
    def tokens(self) -> int:
        """Tokens of one update."""
        return self.batch * self.context

    @property
    def parameters(self) -> int:
        """Count all parameters; the tied table counts once."""
        block = 12 * self.width**2 + 13 * self.width
        return (self.vocabulary + self.context) * self.width + self.depth * block + 2 * self.width

    @property
    def multiplied(self) -> int:
        """Count the parameters that take part in products: the positions are only looked up, the tied table is a head."""
        return self.parameters - self.context * self.width

    @property
    def flops(self) -> float:
        """Floating-point operations of one update, 6N + 12LTD a token. Kaplan et al. 2020, arXiv:2001.08361."""
        return self.tokens * (6.0 * self.multiplied + 12.0 * self.depth * self.context * self.width)


CASES = {
    case.name: case
    for case in (
        Case("1m", 4, 128, 4, batch=12, burst=8),
        Case("1m-b64", 4, 128, 4, batch=64, burst=2),
        Case("10m", 6, 384, 6, batch=8, burst=3),
        Case("25m", 8, 512, 8, batch=4, burst=3),
        Case("100m", 12, 768, 12, batch=4, vocabulary=20000, burst=1),
    )
}
GPU_CASES = {
    case.name: case
    for case in (
        Case("124m", 12, 768, 12, context=1024, batch=16, vocabulary=50304, burst=10),
        Case("char-10.7m", 6, 384, 6, batch=64, burst=20),
    )
}
