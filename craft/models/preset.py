"""Known architectures as values of `Sequence`: GPT-2 and Llama.

Radford et al. 2019, "Language models are unsupervised multitask learners"; Touvron et al. 2023, arXiv:2302.13971.
"""

from __future__ import annotations

from craft.mixers import Attention, FeedForward
from craft.models.sequence import Sequence

__all__ = ["gpt2", "llama"]


def gpt2(width: int = 768, depth: int = 12, heads: int = 12, context: int = 1024) -> Sequence:
    """Describe a GPT-2: LayerNorm, biases, learned positions, GELU by tanh, a tied head, and its initialisation.

    Dropout, where it is set, acts on what each mixer adds to the stream, not on the embedding or the attention's shares.

    Parameters
    ----------
    width, depth, heads
        Features of the stream, blocks, attention heads; the smallest GPT-2 has the defaults.
    context
        Longest sequence, tokens.

    Examples
    --------
    >>> from craft import param
    >>> param.count(gpt2().build(vocabulary=50257).spec)
    124439808
    """
    attention = Attention(heads=heads, rotary=False, normed=False, bias=True)
    pattern = (attention, FeedForward(activation="gelu_tanh", bias=True))
    return Sequence(width, pattern, depth, tied=True, norm="layer", positions=context, std=0.02)


def llama(width: int = 4096, depth: int = 32, heads: int = 32, groups: int = 0, expand: float = 2.6875) -> Sequence:
    """Describe a Llama: RMS norm, rotary positions, SwiGLU, no biases, a head of its own. It starts as `Sequence` does.

    Parameters
    ----------
    width, depth, heads
        Features of the stream, blocks, query heads; the first Llama of 7 billion parameters has the defaults.
    groups
        Key/value heads, a divisor of `heads`; 0: as many as heads.
    expand
        Inner width of the feed-forward as a multiple of `width`.

    Examples
    --------
    >>> from craft import param
    >>> param.count(llama().build(vocabulary=32000).spec)
    6738415616
    """
    pattern = (Attention(heads, groups, normed=False), FeedForward(expand, "swiglu"))
    return Sequence(width, pattern, depth)
