"""Who takes part: a peer, how it is run, in which precision, and with whose allocator settings."""

from __future__ import annotations

import attrs

__all__ = ["KEPT", "Contestant", "field", "products"]

KEPT = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483647:glibc.malloc.top_pad=67108864"
"""The settings of craft/engine/allocator.py as GLIBC_TUNABLES, which any program can be started with."""


@attrs.frozen
class Contestant:
    """One program that is timed."""

    peer: str
    """Module in tools/bench/peers."""
    variant: str
    """How it is run: a compile mode, `eager`, `compiled`, `jit`."""
    precision: str = "fp32"
    """Type of the products: fp32 or bf16."""
    kept: bool = False
    """Whether a peer is started with Craft's allocator settings; Craft always has them."""
    architecture: str = "gpt2"
    """`gpt2`, which all share, or `default`: Craft's own model and optimiser of the same width and depth."""
    memory: str = ""
    """Craft's `--memory`; empty for `fast`, which keeps all activations."""

    @property
    def name(self) -> str:
        """How tables call it."""
        extra = [self.architecture] if self.architecture != "gpt2" else []
        extra += [f"memory={self.memory}"] if self.memory else []
        extra += ["+alloc"] if self.kept else []
        return " ".join((self.peer, self.variant, self.precision, *extra))


def field(only: tuple[str, ...] = (), *, quick: bool = False) -> list[Contestant]:
    """List everybody, Craft first.

    Parameters
    ----------
    only
        Peers to take; empty for all.
    quick
        Take the likely best variant of each peer only.
    """
    everybody = [Contestant("craft", mode, kind) for kind in ("bf16", "fp32") for mode in ("step", "block", "none")]
    everybody += [Contestant("craft", mode, "bf16", architecture="default") for mode in ("step", "block", "none")]
    ways: dict[str, tuple[str, ...]] = {
        "plain": ("eager", "compiled"),
        "hugging": ("eager", "compiled"),
        "lightning": ("eager", "compiled"),
    }
    ways["jax_optax"] = ("jit",)
    for peer, variants in ways.items():
        everybody += [
            Contestant(peer, way, kind, kept) for kind in ("bf16", "fp32") for way in variants for kept in (False, True)
        ]
    chosen = [one for one in everybody if not only or one.peer in only]
    return [one for one in chosen if not quick or _likely(one)]


def _likely(one: Contestant) -> bool:
    return one.precision == "bf16" and not one.kept and one.variant in ("step", "none", "eager", "jit")


def products() -> list[Contestant]:
    """List the workers that measure the machine's rate of matrix products."""
    return [Contestant("product", "square", kind, kept=True) for kind in ("bf16", "fp32")]
