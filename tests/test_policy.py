"""A policy is in force inside its block, whatever happens there, and read while a program is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from craft import policy
from craft.types import Tensor


def test_the_default() -> None:
    assert policy.current() == policy.Policy(torch.float32, "auto", tape=False, wrap=None)


def test_blocks_nest_and_change_only_what_they_name() -> None:
    with policy.using(kernels="math") as outer:
        assert policy.current() == outer == policy.Policy(kernels="math")
        with policy.using(compute=torch.bfloat16, tape=True):
            assert policy.current() == policy.Policy(torch.bfloat16, "math", tape=True)
        assert policy.current() == outer
    assert policy.current() == policy.Policy()


def test_the_former_policy_returns_after_an_error() -> None:
    with pytest.raises(KeyError), policy.using(kernels="math"), policy.using(tape=True):
        raise KeyError
    assert policy.current() == policy.Policy()


def test_an_unknown_choice_is_refused_and_changes_nothing() -> None:
    with pytest.raises((TypeError, ValueError), match="colour"), policy.using(colour="red"):
        raise AssertionError
    assert policy.current() == policy.Policy()


def test_a_region_is_wrapped_by_the_policy_of_the_call() -> None:
    def double(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: 2 * function(*args)

    piece = policy.region(lambda a, b: a + b)
    assert piece(1, 2) == 3
    with policy.using(wrap=double):
        assert piece(1, 2) == 6
        with policy.using(wrap=None):
            assert piece(1, 2) == 3
    assert piece(1, 2) == 3


def test_a_program_is_traced_under_its_policy() -> None:
    """The choice is a constant of the program; another policy is another program, not a stale one."""
    torch._dynamo.reset()

    def function(x: Tensor) -> Tensor:
        with policy.using(kernels="math"):
            inner = 10.0 if policy.current().kernels == "math" else 0.0
        return x * (1.0 if policy.current().kernels == "math" else 2.0) + inner

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert float(compiled(torch.tensor(1.0))) == 12
    with policy.using(kernels="math"):
        assert float(compiled(torch.tensor(1.0))) == 11
    assert float(compiled(torch.tensor(1.0))) == 12
    assert policy.current() == policy.Policy()
