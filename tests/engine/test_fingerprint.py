"""Fingerprints: what changes a program changes them, and what has no content to tell it by has none."""

import functools
import subprocess
import sys
import types
from typing import Any, NamedTuple

import attrs
import pytest
import torch

from craft.engine.fingerprint import Unknown, fingerprint
from craft.models import Sequence

SCALE = 2.0


def closing(value):
    return lambda x: (x, value)


def scaled(x):
    return SCALE * x


def scaled_within(x):
    return [SCALE * y for y in x]


@attrs.frozen
class Value:
    """A value."""

    a: Any = 1
    """Anything."""


class Pair(NamedTuple):
    """Two."""

    a: Any
    b: Any


class Slotted:
    """What has no dictionary."""

    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Held:
    """A plain object."""

    factor = 1.0

    def __init__(self, a):
        self.a = a

    def method(self, x):
        return SCALE * self.a * x


@functools.cache
def remembered(x):
    return scaled(x)


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "numbers": (1, 2),
    "types of numbers": (1, 1.0),
    "truth": (True, 1),
    "signs of zero": (0.0, -0.0),
    "dtypes": (torch.float32, torch.float16),
    "orders": ([1, 2], [2, 1]),
    "kinds of sequences": ([1], (1,)),
    "nesting": ([[1], 2], [1, [2]]),
    "sets": ({1, 2}, {1, 3}),
    "keys": ({"a": 1}, {"b": 1}),
    "content of tensors": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
    "shapes of tensors": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "types of tensors": (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    "closures": (closing(1), closing(2)),
    "defaults": (lambda x=1: x, lambda x=2: x),
    "code": (lambda x: x + 1, lambda x: x * 1),
    "constants in code": (lambda x: x + 1, lambda x: x + 2),
    "partials": (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "attrs values": (Value(1), Value(2)),
    "named tuples": (Pair(1, 2), Pair(1, 3)),
    "classes of equal content": (Pair(1, 2), (1, 2)),
    "slots": (Slotted(1), Slotted(2)),
    "objects": (Held(1), Held(2)),
    "methods of objects": (Held(1).method, Held(2).method),
    "built-in methods of objects": ({"a": 1}.get, {"a": 2}.get),
    "configurations": (Sequence(depth=1), Sequence(depth=2)),
    "models": (Sequence(width=16, depth=1).build(3).apply, Sequence(width=16, depth=1, tied=True).build(3).apply),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_told_apart_and_what_is_equal_is_not(name):
    first, second = DIFFERENT[name]
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)


def test_equal_content_in_other_objects_is_the_same():
    assert fingerprint(closing([1, Value(torch.ones(3))])) == fingerprint(closing([1, Value(torch.ones(3))]))
    one, other = (Sequence(width=16, depth=1).build(3) for _ in range(2))
    assert fingerprint(one.apply) == fingerprint(other.apply)
    recursive: list[Any] = [1]
    recursive.append(recursive)
    assert fingerprint(recursive) == fingerprint(recursive)


@pytest.mark.parametrize("function", [scaled, scaled_within, Held(1).method, remembered, functools.partial(scaled, 1)])
def test_a_global_that_changes_is_seen(function, monkeypatch):
    before = fingerprint(function)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert fingerprint(function) != before


def test_an_attribute_of_a_class_that_changes_is_seen(monkeypatch):
    before = fingerprint(Held(1))
    monkeypatch.setattr(Held, "factor", 2.0)
    assert fingerprint(Held(1)) != before


def test_the_text_of_a_module_and_what_is_set_in_it_are_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    place = tmp_path / "settings_of_this_test.py"

    def found(text, **changes):
        place.write_text(text, encoding="utf-8")
        module = types.ModuleType("settings_of_this_test")
        module.__file__ = str(place)
        vars(module).update({"RATE": 1.0} | changes)
        scope = {"settings": module, "__name__": "__main__"}
        exec("def function(x):\n    return x * settings.RATE", scope)
        return fingerprint(scope["function"])

    first = found("RATE = 1.0\n")
    assert found("RATE = 1.0\n") == first
    assert found("RATE = 1.0  # a remark\n") != first
    assert found("RATE = 1.0\n", RATE=2.0) != first


@pytest.mark.parametrize(
    "make",
    [
        lambda: open(__file__, encoding="utf-8"),  # noqa: SIM115 - closed with the test
        lambda: (x for x in [1]),
        lambda: iter([1]),
        lambda: torch.Generator(),
        lambda: object(),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.nn.Linear(1, 1),
    ],
    ids=["file", "generator", "iterator", "random", "object", "meta", "sparse", "module"],
)
def test_what_has_no_content_is_refused(make):
    value = make()
    with pytest.raises(Unknown, match=r"^a "):
        fingerprint(closing(value))
    if hasattr(value, "close"):
        value.close()


def test_a_large_tensor_is_not_hashed(monkeypatch):
    monkeypatch.setattr("craft.engine.fingerprint._LARGEST", 15)
    assert fingerprint(torch.zeros(3))
    with pytest.raises(Unknown, match=r"a closed-over tensor of shape \(4,\) on cpu"):
        fingerprint(torch.zeros(4))


def test_a_name_that_is_not_yet_bound_is_no_obstacle():
    def outer():
        def inner():
            return later

        found = fingerprint(inner)
        later = 1
        return found, fingerprint(inner), later

    first, second, _ = outer()
    assert first != second


TYPED = """
from craft.engine.fingerprint import fingerprint
RATE = 1.0
class Method:
    def __call__(self, x):
        return x * FACTOR
def function(x):
    return x * RATE
first, called = fingerprint(function), fingerprint(Method())
RATE = 2.0
assert fingerprint(function) != first
class Method:
    def __call__(self, x):
        return x / FACTOR
assert fingerprint(Method()) != called
print(first, called)
"""


def test_what_is_typed_into_an_interpreter_is_seen_and_is_the_same_in_each(root):
    """It has no file that could tell of a change."""
    said = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", TYPED.replace("FACTOR", "3.0")]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        said.append(done.stdout)
    assert said[0] == said[1] != ""
