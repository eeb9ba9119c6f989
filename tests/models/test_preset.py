"""The presets equal architectures that are written out as plain modules, in values and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from craft import config, models, param, policy, tree
from craft.models import Sequence
from craft.types import Context, Tensor, Tree

WIDTH, DEPTH, HEADS, CONTEXT, VOCABULARY = 24, 3, 4, 10, 13
IDS = torch.randint(VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """One block of GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """GPT-2 as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList([Layer() for _ in range(DEPTH)])
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for layer in self.h:
            x = layer(x)
        return functional.linear(self.ln_f(x), self.wte.weight)


def random_params(spec: Tree) -> Tree:
    source = torch.Generator().manual_seed(1)
    made = tree.cast(param.materialise(spec, 0), torch.float64)
    return tree.map(lambda leaf: leaf + 0.3 * torch.randn(leaf.shape, generator=source, dtype=torch.float64), made)


def named_as_gpt2(params: Tree) -> dict[str, Tensor]:
    """Give a tree of our parameters (or gradients) the names and the layout of the module's."""
    found = {"wte.weight": params["embed"], "wpe.weight": params["position_embed"]}
    found |= {"ln_f.weight": params["norm"]["scale"], "ln_f.bias": params["norm"]["bias"]}
    for depth, block in enumerate(tree.unstack(params["blocks"])):
        a, f = block["attention"], block["feedforward"]
        parts: dict[str, Any] = {
            "ln_1.weight": a["norm"]["scale"],
            "ln_1.bias": a["norm"]["bias"],
            "c_attn.weight": torch.cat((a["query"], a["key"], a["value"]), -1).T,
            "c_attn.bias": torch.cat((a["query_bias"], a["key_bias"], a["value_bias"])),
            "c_proj.weight": a["out"].T,
            "c_proj.bias": a["out_bias"],
            "ln_2.weight": f["norm"]["scale"],
            "ln_2.bias": f["norm"]["bias"],
            "c_fc.weight": f["up"].T,
            "c_fc.bias": f["up_bias"],
            "c_out.weight": f["out"].T,
            "c_out.bias": f["out_bias"],
        }
        found |= {f"h.{depth}.{name}": leaf for name, leaf in parts.items()}
    return found


def close(ours: Tensor, theirs: Tensor, name: str = "") -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("kernels", ["auto", "math"])
@pytest.mark.parametrize("time", [1, 7, CONTEXT])
def test_gpt2_equals_the_module(kernels: str, time: int) -> None:
    model = models.gpt2(WIDTH, DEPTH, HEADS, CONTEXT).build(VOCABULARY)
    params = random_params(model.spec)
    module = GPT2().double()
    module.load_state_dict(named_as_gpt2(params))  # strict: every number of theirs is one of ours
    assert sum(leaf.numel() for leaf in module.parameters()) == param.count(model.spec)
    logits = module(IDS[:, :time])
    flow = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (logits * flow).sum().backward()
    with policy.using(kernels=kernels):
        close(model.apply(params, IDS[:, :time], Context())[0], logits.detach())
        grads = torch.func.grad(lambda p: (model.apply(p, IDS[:, :time], Context())[0] * flow).sum())(params)
    ours = named_as_gpt2(grads)
    for name, leaf in module.named_parameters():
        assert leaf.grad is not None
        close(ours[name], leaf.grad, name)


def test_gpt2_starts_as_it_was_published() -> None:
    depth = 8
    spec = models.gpt2(64, depth, 4, 200).build(500).spec
    for path, leaf in tree.named(param.materialise(spec, 0)).items():
        if path.endswith(("bias", "scale")):
            assert bool((leaf == float(path.endswith("scale"))).all()), path
        else:
            std = 0.02 / math.sqrt(2 * depth) if path.endswith(".out") else 0.02
            assert float(leaf.std()) == pytest.approx(std, rel=0.05), path
            assert abs(float(leaf.mean())) < 5 * std / math.sqrt(leaf.numel()), path


def turn(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * 10_000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    cos, sin = (torch.cat((part, part), -1) for part in (angle.cos(), angle.sin()))
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def llama(params: Tree, ids: Tensor, heads: int) -> Tensor:
    x = params["embed"][ids]
    for block in tree.unstack(params["blocks"]):
        a, f = block["attention"], block["feedforward"]
        y = functional.rms_norm(x, x.shape[-1:], a["norm"], 1e-6)
        each = x.shape[-1] // heads
        q, k, v = ((y @ a[name]).unflatten(-1, (-1, each)).transpose(1, 2) for name in ("query", "key", "value"))
        y = functional.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=True)
        x = x + y.transpose(1, 2).flatten(2) @ a["out"]
        y = functional.rms_norm(x, x.shape[-1:], f["norm"], 1e-6)
        x = x + (functional.silu(y @ f["gate"]) * (y @ f["up"])) @ f["out"]
    logits: Tensor = functional.rms_norm(x, x.shape[-1:], params["norm"], 1e-6) @ params["head"]
    return logits


@pytest.mark.parametrize("groups", [0, 2])
def test_llama_equals_its_equations(groups: int) -> None:
    model = models.llama(WIDTH, DEPTH, HEADS, groups, expand=2.0).build(VOCABULARY)
    params = random_params(model.spec)
    flow = torch.randn(2, CONTEXT, VOCABULARY, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    close(model.apply(params, IDS, Context())[0], llama(params, IDS, HEADS))
    ours = torch.func.grad(lambda p: (model.apply(p, IDS, Context())[0] * flow).sum())(params)
    theirs = torch.func.grad(lambda p: (llama(p, IDS, HEADS) * flow).sum())(params)
    for (path, leaf), other in zip(tree.named(ours).items(), tree.leaves(theirs), strict=True):
        close(leaf, other, path)


@pytest.mark.parametrize("preset", [models.gpt2(), models.llama()])
def test_a_preset_is_a_value_like_any_other(preset: Sequence) -> None:
    assert config.from_dict(Sequence, config.to_dict(preset)) == preset
