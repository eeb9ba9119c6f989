from __future__ import annotations

import inspect
from typing import Any

import attrs
import pytest
import torch

from craft import config, optim, param, tree
from craft.optim.adam import AdamState
from craft.optim.muon import MuonState
from craft.types import Context, Tree

SPEC = {
    "embed": param.Param((5, 4), param.Normal(1.0), ("V", "D")),
    "up": param.Param((4, 6), param.Normal(1.0), ("D", "F"), rate=0.5),
    "gain": param.Param((4,), param.Constant(1.0), ("D",)),
    "head": param.Param((4, 5), param.Normal(1.0), ("D", "V")),
}
RECIPES: list[Any] = [optim.AdamW, optim.SGD, optim.Lion, optim.Muon]


def moved(recipe: Any, lr: float = 0.1, at: str = "", hyper: dict[str, torch.Tensor] | None = None, grads: float = 1.0) -> Tree:
    params = param.materialise(SPEC, 0)
    transform = recipe.build(SPEC, lr, at)
    state, updates = transform.init(params), params
    for step in range(3):
        grads_ = tree.map(lambda p, step=step: grads * torch.cos(p + step), params)
        updates, state = transform.update(grads_, state, params, Context(hyper=hyper or {}))
    return updates


@pytest.mark.parametrize("recipe", RECIPES)
def test_multipliers_scale_the_rate(recipe: Any) -> None:
    plain = {name: param.Param(leaf.shape, leaf.init, leaf.axes) for name, leaf in SPEC.items()}
    params = param.materialise(SPEC, 0)
    grads = tree.map(torch.cos, params)
    slow, fast = (
        transform.update(grads, transform.init(params), params, Context())[0]
        for transform in (recipe().build(SPEC, 0.1), recipe().build(plain, 0.1))
    )
    torch.testing.assert_close(slow["up"], 0.5 * fast["up"])
    torch.testing.assert_close(slow["head"], fast["head"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_leaves_with_two_axes_decay(recipe: Any) -> None:
    with_decay, without = moved(recipe(decay=0.5)), moved(recipe(decay=0.0))
    assert torch.equal(with_decay["gain"], without["gain"])
    for name in ("embed", "up", "head"):
        assert not torch.equal(with_decay[name], without[name]), name


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("part", ["clip", "average", "decay"])
def test_a_part_of_zero_is_left_out(recipe: Any, part: str) -> None:
    nothing = {"clip": 0.0, "average": 0.0, "decay": 0.0}
    params = param.materialise(SPEC, 0)
    bare = recipe(**nothing).build(SPEC, 0.1).init(params)
    full = recipe(**{**nothing, part: 0.5}).build(SPEC, 0.1).init(params)
    assert len(full) == len(bare) + 1


NAMES = {
    optim.AdamW: {"decay": 0.3, "beta1": 0.7, "beta2": 0.8, "eps": 0.1, "clip": 0.5},
    optim.SGD: {"momentum": 0.5, "decay": 0.3, "clip": 0.5},
    optim.Lion: {"decay": 0.3, "beta1": 0.5, "beta2": 0.8, "clip": 0.5},
    optim.Muon: {"momentum": 0.5, "decay": 0.3, "rest": 0.7, "beta1": 0.7, "beta2": 0.8, "eps": 0.1, "clip": 0.5},
}
COMPLEMENTS = {"beta1", "beta2", "momentum"}


@pytest.mark.parametrize(("recipe", "name"), [(recipe, name) for recipe in RECIPES for name in NAMES[recipe]])
def test_a_number_in_the_state_is_as_one_in_the_recipe(recipe: Any, name: str) -> None:
    """Also: every number has an effect."""
    value = NAMES[recipe][name]
    base = recipe(decay=0.1, clip=1.0)
    kept = torch.tensor(1.0 - value if name in COMPLEMENTS else value)
    given = moved(base, at="optimizer", hyper={f"optimizer.{name}": kept}, grads=100.0 if name == "clip" else 1.0)
    values = {"decay": 0.1, "clip": 1.0, name: value}
    fixed = moved(recipe(**values), grads=100.0 if name == "clip" else 1.0)
    plain = moved(base, grads=100.0 if name == "clip" else 1.0)
    for a, b in zip(tree.leaves(given), tree.leaves(fixed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    clip_is_lost_in_signs = name == "clip" and recipe in (optim.Lion, optim.AdamW, optim.Muon)
    assert clip_is_lost_in_signs or any(
        not torch.equal(a, b) for a, b in zip(tree.leaves(plain), tree.leaves(fixed), strict=True)
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_the_state_holds_is_what_the_recipe_says(recipe: Any) -> None:
    """The numbers that `config.tunables` puts into the state change nothing."""

    @attrs.frozen
    class Experiment:
        optimizer: Any

    value = recipe(decay=0.1, average=0.9, clip=1.0)
    hyper = {path: torch.tensor(number) for path, number in config.tunables(Experiment(value)).items()}
    assert set(hyper) == {f"optimizer.{field.name}" for field in attrs.fields(recipe) if isinstance(field.default, float)}
    for a, b in zip(tree.leaves(moved(value, at="optimizer", hyper=hyper)), tree.leaves(moved(value)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_average_is_kept_and_read_from_the_state(recipe: Any) -> None:
    params = param.materialise(SPEC, 0)
    transform = recipe(average=0.999).build(SPEC, 0.1, "optimizer")
    state = transform.init(params)
    updates, state = transform.update(params, state, params, Context(hyper={"optimizer.average": torch.tensor(1.0)}))
    after = tree.map(torch.add, params, updates)
    for a, b in zip(tree.leaves(optim.averaged(state)), tree.leaves(after), strict=True):
        torch.testing.assert_close(a, b)


def test_muon_takes_the_matrices_and_adam_the_rest() -> None:
    state = optim.Muon(clip=0.0).build(SPEC, 0.1).init(param.materialise(SPEC, 0))
    routed = state[0]
    assert isinstance(routed["matrix"], MuonState)
    assert set(routed["matrix"].mean) == {"up"}
    assert isinstance(routed["rest"], AdamState)
    assert set(routed["rest"].mean) == {"embed", "gain", "head"}


def test_muon_alone_and_with_another_pattern() -> None:
    matrices = {name: SPEC[name] for name in ("up", "head")}
    state = optim.Muon(clip=0.0, apart="").build(matrices, 0.1).init(param.materialise(matrices, 0))
    assert set(state[0]) == {"matrix"}
    assert set(state[0]["matrix"].mean) == {"up", "head"}


def test_muons_rest_multiplies_the_rate_of_the_rest_alone() -> None:
    low, high = moved(optim.Muon(rest=0.1)), moved(optim.Muon(rest=1.0))
    torch.testing.assert_close(low["up"], high["up"])
    for name in ("embed", "gain", "head"):
        torch.testing.assert_close(10.0 * low[name], high[name])


def test_muon_without_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match="is a matrix outside"):
        optim.Muon().build({"gain": SPEC["gain"]}, 0.1)


@pytest.mark.parametrize(
    ("recipe", "values", "text"),
    [
        (optim.AdamW, {"beta1": 1.0}, "got beta1=1.0"),
        (optim.AdamW, {"average": -0.1}, "got average=-0.1"),
        (optim.AdamW, {"eps": float("nan")}, "got eps=nan"),
        (optim.Lion, {"clip": -1.0}, "got clip=-1.0"),
        (optim.Muon, {"momentum": 1.5}, "got momentum=1.5"),
        (optim.Muon, {"scaling": "other"}, "expected 'spectral' or 'rms'"),
        (optim.Muon, {"apart": "("}, "expected a regular expression"),
        (optim.SGD, {"momentum": 0.0, "nesterov": True}, "nesterov without momentum"),
    ],
)
def test_bad_values_are_refused(recipe: Any, values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        recipe(**values).build(SPEC, 0.1)


def test_every_number_says_what_it_is() -> None:
    """A docstring under every field: it is the help text."""
    for recipe in RECIPES:
        source = inspect.getsource(recipe)
        for field in attrs.fields(recipe):
            after = source.split(f"    {field.name}: ", 1)[1].splitlines()[1]
            assert after.strip().startswith('"""'), f"{recipe.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.scale_by_adam(c1=0.0), "got c1=0.0; expected 1 - beta"),
        (lambda: optim.scale_by_adam(c2=1.1), "got c2=1.1; expected 1 - beta"),
        (lambda: optim.scale_by_lion(c2=-0.1), "got c2=-0.1; expected 1 - beta"),
        (lambda: optim.scale_by_muon(c=0.0), "got c=0.0; expected 1 - beta"),
        (lambda: optim.trace(0.0), "got c=0.0; expected 1 - beta"),
        (lambda: optim.average(0.0), "got c=0.0; expected 1 - beta"),
        (lambda: optim.trace(nesterov=True, dampening=0.1), "got nesterov with dampening=0.1"),
        (lambda: optim.clip_by_norm(0.0), "got limit=0.0; expected a positive norm"),
        (lambda: optim.chain(), "got no transforms to chain"),
    ],
)
def test_bad_constants_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
