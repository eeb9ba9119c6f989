from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from craft import schedule
from craft.schedule import Schedule
from craft.types import Context, Value, hyper, resolve

POINTS = [0.0, 0.05, 0.1, 0.325, 0.55, 0.8, 0.9, 1.0]
CASES = {
    "constant": (schedule.constant(2.0), [2.0] * 8),
    "constant after warm-up": (schedule.constant(2.0, 0.1), [0.02, 1.01, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
    "linear": (
        schedule.linear(2.0, 0.1, 0.0),
        [0.02, 1.01, 2.0, 1.5, 1.0, 2.0 * 0.2 / 0.9, 2.0 * 0.1 / 0.9, 0.0],
    ),
    "cosine": (
        schedule.cosine(2.0, 0.1, 0.5),
        [
            0.02,
            1.01,
            2.0,
            1.5 + 0.5 * math.cos(math.pi / 4),
            1.5,
            1.5 + 0.5 * math.cos(math.pi * 7 / 9),
            1.5 + 0.5 * math.cos(math.pi * 8 / 9),
            1.0,
        ],
    ),
    "stable": (schedule.warmup_stable_decay(2.0, 0.1, 0.2, 0.1), [0.02, 1.01, 2.0, 2.0, 2.0, 2.0, 1.1, 0.2]),
}
cases = pytest.mark.parametrize(("value", "expected"), CASES.values(), ids=CASES.keys())


def at(value: Value, progress: Any) -> Any:
    return resolve(value, Context(progress=progress))


@cases
def test_values(value: Value, expected: list[float]) -> None:
    for progress, number in zip(POINTS, expected, strict=True):
        assert at(value, progress) == pytest.approx(number, abs=1e-12)
        torch.testing.assert_close(
            torch.as_tensor(at(value, torch.tensor(progress))), torch.tensor(number), rtol=0.0, atol=1e-6
        )


@cases
def test_vmapped_and_compiled(value: Value, expected: list[float]) -> None:
    torch._dynamo.reset()
    progress_N = torch.tensor(POINTS)

    def read(progress: torch.Tensor) -> torch.Tensor:
        number: torch.Tensor = torch.ones(()) * at(value, progress)
        return number

    packed = torch.func.vmap(read)(progress_N)
    torch.testing.assert_close(packed, torch.tensor(expected), rtol=0.0, atol=1e-6)
    compiled = torch.compile(torch.func.vmap(read), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(progress_N), packed)


def test_the_peak_may_be_a_number_of_the_state() -> None:
    value = schedule.linear(hyper("lr", 1.0), 0.1)
    lr_K = torch.tensor([1.0, 2.0, 3.0])
    rates = torch.func.vmap(lambda lr: resolve(value, Context(hyper={"lr": lr}, progress=torch.tensor(0.55))))(lr_K)
    torch.testing.assert_close(rates, lr_K / 2.0)


@cases
def test_the_first_update_counts(value: Value, expected: list[float]) -> None:
    assert at(value, 0.0) >= 0.01 * expected[2]


@pytest.mark.parametrize(
    ("built", "direct"),
    [
        (Schedule("linear", 0.1, floor=0.2), schedule.linear(3.0, 0.1, 0.2)),
        (Schedule("cosine", 0.1, floor=0.2), schedule.cosine(3.0, 0.1, 0.2)),
        (Schedule("stable", 0.1, 0.3, 0.2), schedule.warmup_stable_decay(3.0, 0.1, 0.3, 0.2)),
        (Schedule("constant", 0.1), schedule.constant(3.0, 0.1)),
    ],
)
def test_the_recipe_builds_its_shape(built: Schedule, direct: Value) -> None:
    assert [at(built.build(3.0), point) for point in POINTS] == [at(direct, point) for point in POINTS]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"warmup": 1.0}, r"got warmup=1.0; expected a fraction of the run in \[0, 1\)"),
        ({"warmup": -0.1}, "got warmup=-0.1"),
        ({"floor": 1.5}, "got floor=1.5"),
        ({"shape": "stable", "decay": 1.5}, "got decay=1.5"),
        ({"shape": "stable", "warmup": 0.5, "decay": 0.6}, "shorten one"),
        ({"shape": "stable"}, "a stable schedule needs one"),
        ({"shape": "linear", "decay": 0.5}, "no other has any"),
        ({"shape": "constant", "floor": 0.5}, "it never falls"),
        ({"shape": "step"}, "got shape='step'"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Schedule(**values)


def test_a_decay_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="decay=0"):
        schedule.warmup_stable_decay(1.0, 0.1, 0.0)
