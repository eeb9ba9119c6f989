"""Attrs values and plain data: the round trip, strictness, and every problem told with its path."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import config, run
from craft.config import tunable


@attrs.frozen
class Attention:
    heads: int = attrs.field(default=4, validator=config.at_least(1))
    dropout: float = tunable(0.1, validator=config.fraction)


@attrs.frozen
class Recurrence:
    width: int = 8


@attrs.frozen
class Wide(Recurrence):
    factor: float = 2.0


class Plain(Recurrence):
    """No class of its own to attrs, and so no kind."""


Mixer = Attention | Recurrence


@attrs.frozen
class Model:
    pattern: tuple[Mixer, ...] = (Attention(),)
    only: Attention | None = None
    base: Recurrence = Recurrence()
    depth: int = attrs.field(default=2, validator=config.at_least(1))
    names: dict[str, float] = attrs.field(factory=dict)
    pair: tuple[int, str] = (1, "a")


@attrs.frozen
class Optimizer:
    lr: float = tunable(1e-3, validator=config.finite_positive)
    beta: float = tunable(0.9, complement=True, validator=config.fraction)
    kind_of: Literal["adam", "lion", 1] = "adam"


@attrs.frozen
class Experiment:
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    steps: int = 10
    seed: int | None = None
    name: str = "x"
    bias: bool = False
    data: Path = Path("data") / "text"
    rate: float | Literal["auto"] = "auto"


@attrs.frozen
class Needy:
    size: int
    least: int = 1
    most: int = 2

    def __attrs_post_init__(self) -> None:
        if self.most < self.least:
            raise ValueError(f"got most={self.most} below least={self.least}; swap them")


def problems(data: dict[str, Any], cls: type = Experiment) -> list[str]:
    with pytest.raises(config.ConfigError) as error:
        config.from_dict(cls, data)
    return str(error.value).splitlines()


def test_values_of_unions_and_subclasses_carry_their_kind() -> None:
    data = config.to_dict(Model(pattern=(Attention(), Wide()), only=Attention(heads=2), base=Wide(), names={"a": 1}))
    assert data == {
        "pattern": [{"kind": "Attention", "heads": 4, "dropout": 0.1}, {"kind": "Wide", "width": 8, "factor": 2.0}],
        "only": {"kind": "Attention", "heads": 2, "dropout": 0.1},
        "base": {"kind": "Wide", "width": 8, "factor": 2.0},
        "depth": 2,
        "names": {"a": 1.0},
        "pair": [1, "a"],
    }
    assert "kind" not in config.to_dict(Model())["base"]


mixers = (
    st.builds(Attention, heads=st.integers(1, 9), dropout=st.floats(0, 0.99))
    | st.builds(Recurrence, st.integers())
    | st.builds(Wide, st.integers())
)


experiments = st.builds(
    Experiment,
    model=st.builds(
        Model,
        pattern=st.lists(mixers, max_size=3).map(tuple),
        only=st.none() | st.builds(Attention),
        base=st.builds(Wide) | st.builds(Recurrence),
        names=st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    ),
    seed=st.none() | st.integers(),
    name=st.text(max_size=5),
    bias=st.booleans(),
    rate=st.floats(0, 1) | st.just("auto"),
)


@given(experiments)
def test_from_dict_undoes_to_dict_also_through_json(experiment: Any) -> None:
    data = config.to_dict(experiment)
    assert config.from_dict(Experiment, data) == experiment
    assert config.from_dict(Experiment, json.loads(json.dumps(data, allow_nan=False))) == experiment
    assert config.digest(config.to_dict(config.from_dict(Experiment, data))) == config.digest(data)


def test_the_run_makes_the_round_trip() -> None:
    value = run.Run(out=Path("a") / "b", stop=run.Stop(patience=3))
    assert config.from_dict(run.Run, config.to_dict(value)) == value


def test_missing_keys_take_their_defaults_and_ints_become_floats() -> None:
    made = config.from_dict(Experiment, {"optimizer": {"lr": 1}})
    assert made == attrs.evolve(Experiment(), optimizer=Optimizer(lr=1.0))
    assert type(made.optimizer.lr) is float
    assert config.digest(config.to_dict(Optimizer(lr=1))) == config.digest(config.to_dict(Optimizer(lr=1.0)))


def test_an_unknown_key_is_named_by_path_with_the_nearest_names() -> None:
    (line,) = problems({"model": {"pattern": [{"kind": "Attention", "head": 2}]}})
    assert line.startswith("model.pattern.0.head: unknown key; Attention has heads, dropout (did you mean heads?)")


@given(st.text(min_size=1).filter(lambda key: key not in attrs.fields_dict(Optimizer) and key not in ("kind",)))
def test_any_unknown_key_is_refused(key: Any) -> None:
    with pytest.raises(config.ConfigError, match="unknown key"):
        config.from_dict(Experiment, {"optimizer": {key: 1}})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"steps": "1"}, "steps: got '1'; expected a whole number"),
        ({"steps": True}, "steps: got True; expected a whole number"),
        ({"steps": 1.0}, "steps: got 1.0; expected a whole number"),
        ({"steps": None}, "steps: got None; expected a whole number"),
        ({"bias": 1}, "bias: got 1; expected true or false"),
        ({"name": 3}, "name: got 3; expected text"),
        ({"data": 3}, "data: got 3; expected text"),
        ({"optimizer": {"lr": "1e-3"}}, "optimizer.lr: got '1e-3'; expected a number"),
        ({"optimizer": {"lr": False}}, "optimizer.lr: got False; expected a number"),
        ({"optimizer": {"lr": 10**400}}, "expected a number"),
        (
            {"optimizer": {"kind_of": "adm"}},
            "optimizer.kind_of: got 'adm'; expected one of 'adam', 'lion', 1 (did you mean adam?)",
        ),
        ({"optimizer": {"kind_of": True}}, "optimizer.kind_of: got True; expected one of"),
        ({"optimizer": []}, "optimizer: got []; expected a table of Optimizer"),
        ({"seed": "x"}, "seed: got 'x'; expected a whole number or null"),
        ({"rate": "atuo"}, "rate: got 'atuo'; expected a number or one of 'auto'"),
        ({"model": {"pattern": "ab"}}, "model.pattern: got 'ab'; expected a list"),
        ({"model": {"pattern": {"kind": "Attention"}}}, "expected a list"),
        ({"model": {"pattern": [3]}}, "model.pattern.0: got 3; expected a table of Attention or a table of Recurrence"),
        ({"model": {"pattern": [{}]}}, "model.pattern.0.kind: missing; expected one of Attention, Recurrence, Wide"),
        (
            {"model": {"pattern": [{"kind": "Atention"}]}},
            "got 'Atention'; expected one of Attention, Recurrence, Wide (did you mean",
        ),
        ({"model": {"base": {"kind": "Plain"}}}, "got 'Plain'; expected one of Recurrence, Wide"),
        ({"model": {"pattern": [{"kind": ["x"]}]}}, "model.pattern.0.kind: got ['x']"),
        ({"model": {"base": {"kind": "Attention"}}}, "model.base.kind: got 'Attention'; expected one of Recurrence, Wide"),
        ({"model": {"names": [1]}}, "model.names: got [1]; expected a table"),
        ({"model": {"names": {"a": "b"}}}, "model.names.a: got 'b'; expected a number"),
        ({"model": {"pair": [1]}}, "model.pair: got [1]; expected a list of 2"),
        ({"model": {"pair": [1, 2]}}, "model.pair.1: got 2; expected text"),
        ({"model": {"pattern": [{"kind": "Attention", "heads": 0}]}}, "model.pattern.0.heads: got heads=0; expected 1 or more"),
    ],
)
def test_values_are_checked_and_not_converted(data: Any, expected: Any) -> None:
    (line,) = problems(data)
    assert expected in line


def test_a_kind_that_the_annotation_already_tells_may_be_left_out_or_said() -> None:
    assert config.from_dict(Model, {"only": {"heads": 3}}).only == Attention(heads=3)
    assert config.from_dict(Model, {"base": {"kind": "Recurrence"}}).base == Recurrence()
    assert config.from_dict(Recurrence, {"kind": "Wide", "factor": 3}) == Wide(factor=3.0)


def test_all_problems_come_at_once_each_with_its_path() -> None:
    data = {
        "stepz": 1,
        "optimizer": {"lr": -1, "beta": 1.0, "kind_of": "sgd"},
        "model": {"depth": 0, "pattern": [{"kind": "Attention", "dropout": 2}]},
    }
    assert sorted(line.split(":")[0] for line in problems(data)) == [
        "model.depth",
        "model.pattern.0.dropout",
        "optimizer.beta",
        "optimizer.kind_of",
        "optimizer.lr",
        "stepz",
    ]
    with pytest.raises(config.ConfigError, match=r"^experiment\.optimizer\.lr: "):
        config.from_dict(Experiment, {"optimizer": {"lr": -1}}, path="experiment")


def test_missing_fields_and_the_checks_of_whole_classes_are_problems() -> None:
    assert problems({}, Needy) == ["size: missing; it has no default"]
    assert problems({"size": 1, "least": 5}, Needy) == ["got most=2 below least=5; swap them"]


def test_what_json_cannot_say_is_named() -> None:
    with pytest.raises(config.ConfigError, match=r"inf at optimizer\.lr"):
        config.to_dict(Experiment(optimizer=infinite()))
    with pytest.raises(config.ConfigError, match="at name"):
        config.to_dict(Experiment(name=print))  # type: ignore[arg-type]


def infinite() -> Optimizer:
    value = Optimizer()
    object.__setattr__(value, "lr", math.inf)
    return value
