"""JAX: a flax module, optax's AdamW, one jitted update that gives its state away."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from tools.bench.beat import Beat
from tools.bench.setup import Setup

__all__ = ["GPT", "train"]


class _Block(nn.Module):
    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x_BTD: Any) -> Any:
        """Add attention and the feed-forward to the stream."""

        def dense(size: int, name: str) -> nn.Dense:
            return nn.Dense(size, dtype=self.dtype, name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        batch, time, _ = x_BTD.shape
        joined = dense(3 * self.width, "qkv")(norm("ln1")(x_BTD))
        q, k, v = (x.reshape(batch, time, self.heads, -1) for x in jnp.split(joined, 3, -1))
        y_BTHE = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + dense(self.width, "proj")(y_BTHE.reshape(batch, time, -1))
        hidden = jax.nn.gelu(dense(4 * self.width, "fc")(norm("ln2")(x_BTD)), approximate=True)
        return x_BTD + dense(self.width, "out")(hidden)


class GPT(nn.Module):
    """GPT-2 with a head tied to the embedding."""

    vocabulary: int
    context: int
    width: int
    depth: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, ids_BT: Any) -> Any:
        """Return logits, float32 (B, T, V)."""
        table = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="wte")
        places = nn.Embed(self.context, self.width, dtype=self.dtype, name="wpe")
        x_BTD = table(ids_BT) + places(jnp.arange(ids_BT.shape[1]))
        for depth in range(self.depth):
            x_BTD = _Block(self.width, self.heads, self.dtype, name=f"blocks_{depth}")(x_BTD)
        return table.attend(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="lnf")(x_BTD)).astype(jnp.float32)


def _load(setup: Setup) -> Any:
    """Put the shared weights into the tree that flax expects."""
    params: dict[str, Any] = {}
    for name, array in setup.material.weights().items():
        words = name.replace("blocks.", "blocks_").split(".")
        if len(words) == 1:
            words.append("embedding")
        elif words[-1] == "weight":
            words[-1] = "scale" if words[-2].startswith("ln") else "kernel"
        inner = params
        for word in words[:-1]:
            inner = inner.setdefault(word, {})
        inner[words[-1]] = jnp.asarray(array)
    return params


def train(setup: Setup, beat: Beat) -> None:
    """Train on the shared batches until the parent says stop."""
    case = setup.case
    dtype = jnp.bfloat16 if setup.bf16 else jnp.float32
    model = GPT(case.vocabulary, case.context, case.width, case.depth, case.heads, dtype)
    params = _load(setup)
    wide = jax.tree.map(lambda value: value.ndim > 1, params)
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, b1=0.9, b2=0.99, weight_decay=0.1, mask=wide))

    def loss_of(params: Any, ids_BN: Any) -> Any:
        logits_BTV = model.apply({"params": params}, ids_BN[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, ids_BN[:, 1:]).mean()

    def update(state: Any, ids_BN: Any) -> Any:
        params, moments = state
        loss, grads = jax.value_and_grad(loss_of)(params, ids_BN)
        updates, moments = transform.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    step = jax.jit(update, donate_argnums=0)
    batches = [jnp.asarray(each) for each in setup.material.batches().astype("int32")]
    state = (params, transform.init(params))
    beat.start(parameters=sum(value.size for value in jax.tree.leaves(params)))
    done = 0
    while True:
        state, loss = step(state, batches[done % len(batches)])
        loss.block_until_ready()
        done += 1
        beat(lambda loss=loss: float(loss))  # type: ignore[misc]
