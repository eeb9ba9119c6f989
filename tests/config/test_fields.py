"""Fields of configurations: what the validators refuse, and where the tunable numbers are found."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from craft import config
from craft.config import tunable


@attrs.frozen
class Attention:
    heads: int = 4
    dropout: float = tunable(0.1)


@attrs.frozen
class Recurrence:
    width: int = 8


@attrs.frozen
class Model:
    pattern: tuple[Attention | Recurrence, ...] = (Attention(),)
    names: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Optimizer:
    lr: float = tunable(1e-3)
    beta: float = tunable(0.9, complement=True)


@attrs.frozen
class Experiment:
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    steps: int = 10


@pytest.mark.parametrize("validator", [config.positive, config.finite_positive, config.fraction, config.at_least(0)])
@pytest.mark.parametrize("value", [-1, math.nan, "1", None, True])
def test_validators_refuse_what_is_no_such_number(validator: Any, value: Any) -> None:
    @attrs.frozen
    class Holder:
        size: Any = attrs.field(validator=validator)

    with pytest.raises(ValueError, match=r"got size=.*; expected"):
        Holder(value)


def test_validators_take_their_bounds() -> None:
    field = attrs.fields(Optimizer).lr
    config.positive(None, field, math.inf)
    config.fraction(None, field, 0)
    config.at_least(2)(None, field, 2)
    for validator, value in (
        (config.finite_positive, math.inf),
        (config.positive, 0),
        (config.fraction, 1),
        (config.at_least(2), 1),
    ):
        with pytest.raises(ValueError, match="expected"):
            validator(None, field, value)


def test_tunables_are_found_by_path_and_stored_as_complements() -> None:
    found = config.tunables(Experiment(model=Model(pattern=(Recurrence(), Attention(dropout=0.25)))))
    assert found == {"model.pattern.1.dropout": 0.25, "optimizer.lr": 1e-3, "optimizer.beta": 1 - 0.9}
    assert all(isinstance(value, float) for value in found.values())


def test_choice_takes_its_words_only():
    @attrs.frozen
    class Some:
        word: str = config.choice("a", "a", "b")

    assert Some().word == "a"
    assert Some("b").word == "b"
    with pytest.raises(ValueError, match="got word='c'; expected a or b"):
        Some("c")
