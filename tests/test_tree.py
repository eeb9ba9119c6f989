"""Trees: names, round trips and the order of leaves, over random nests."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from craft import tree
from craft.types import Tensor


class Pair(NamedTuple):
    first: Any
    second: Any


keys = st.text("abcxyz", min_size=1, max_size=3)
tensors = st.integers(0, 99).map(lambda n: torch.full((2, 3), float(n)))


def nests(leaves: Any) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=3),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=8,
    )


def reorder(nest: Any) -> Any:
    """Turn every dict round."""
    if isinstance(nest, dict):
        return {key: reorder(nest[key]) for key in reversed(nest)}
    if isinstance(nest, Pair):
        return Pair(*map(reorder, nest))
    return type(nest)(map(reorder, nest)) if isinstance(nest, list | tuple) else nest


def same(a: Any, b: Any) -> bool:
    if tree.paths(a) != tree.paths(b):
        return False
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@given(nests(tensors))
def test_paths_are_unique_and_lead_to_their_leaves(nest: Any) -> None:
    names = tree.paths(nest)
    assert len(set(names)) == len(names) == len(tree.leaves(nest))
    for name, leaf in tree.named(nest).items():
        found = nest
        for part in name.split(".") if name else []:
            found = (
                found[part]
                if isinstance(found, dict)
                else getattr(found, part)
                if isinstance(found, Pair)
                else found[int(part)]
            )
        assert found is leaf


@given(nests(tensors))
def test_unflatten_undoes_flatten(nest: Any) -> None:
    values, structure = tree.flatten(nest)
    again = tree.unflatten(structure, values)
    assert same(again, nest)
    assert tree.flatten(again)[1] == structure


@given(nests(tensors))
def test_the_order_of_dict_keys_is_irrelevant(nest: Any) -> None:
    assert same(reorder(nest), nest)
    assert list(tree.named(reorder(nest))) == list(tree.named(nest))


@given(nests(tensors), st.integers(1, 3))
def test_unstack_undoes_stack(nest: Any, number: Any) -> None:
    trees = [tree.map(lambda leaf, i=i: leaf + i, nest) for i in range(number)]
    stacked = tree.stack(trees)
    assert all(leaf.shape == (number, 2, 3) for leaf in tree.leaves(stacked))
    if tree.leaves(nest):
        assert all(same(a, b) for a, b in zip(tree.unstack(stacked), trees, strict=True))
    else:
        with pytest.raises(ValueError, match="without leaves"):
            tree.unstack(stacked)


def test_stacking_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no trees"):
        tree.stack([])


def test_map_takes_trees_of_one_structure_only() -> None:
    assert tree.map(lambda a, b: a + b, {"x": [1, 2]}, {"x": [3, 4]}) == {"x": [4, 6]}
    with pytest.raises(ValueError, match="key mismatch"):
        tree.map(lambda a, b: a, {"x": 1}, {"y": 1})


def test_names_that_dots_make_equal_are_refused() -> None:
    with pytest.raises(ValueError, match=r"named a\.b"):
        tree.named({"a.b": 1, "a": {"b": 2}})


def test_select_finds_the_pattern_anywhere_in_the_path() -> None:
    nest = {"blocks": [{"in": 1, "norm": 2}], "norm": 3}
    assert tree.select(nest, "norm") == {"blocks": [{"in": False, "norm": True}], "norm": True}
    assert tree.select(nest, "^norm$") == {"blocks": [{"in": False, "norm": False}], "norm": True}


def test_partition_groups_by_label_in_order() -> None:
    assert tree.partition({"a": 1, "b": 2, "c": 3}, ["x", "y", "x"]) == {"x": [1, 3], "y": [2]}
    with pytest.raises(ValueError, match="got 1 labels for 2 leaves"):
        tree.partition([1, 2], ["x"])


def test_norm_is_that_of_all_numbers_together() -> None:
    nest = {"a": torch.full((3,), 2.0), "b": [torch.tensor(2.0)]}
    assert tree.norm(nest) == 4.0
    assert tree.norm(()) == 0.0
    assert tree.norm({"a": torch.full((10_000,), 0.01, dtype=torch.bfloat16)}).dtype == torch.float32
    assert tree.norm([torch.full((4,), 1e100, dtype=torch.float64)]) == 2e100


def test_cast_and_to_and_size() -> None:
    nest = {"a": torch.ones(2, 3), "b": torch.tensor([1]), "c": torch.tensor(True)}
    assert [leaf.dtype for leaf in tree.leaves(tree.cast(nest, torch.bfloat16))] == [torch.bfloat16, torch.int64, torch.bool]
    assert all(leaf.device.type == "meta" for leaf in tree.leaves(tree.to(nest, "meta")))
    assert tree.size(nest) == 8
    assert same(tree.zeros_like(nest), {"a": torch.zeros(2, 3), "b": torch.tensor([0]), "c": torch.tensor(False)})


@pytest.mark.parametrize("choice", [True, False])
def test_where_takes_one_tree_as_a_whole_and_keeps_bad_numbers_out(choice: Any) -> None:
    good, bad = {"a": torch.ones(2), "n": torch.tensor(3)}, {"a": torch.full((2,), torch.nan), "n": torch.tensor(4)}
    picked: dict[str, Tensor] = tree.where(torch.tensor(choice), good, bad)
    assert picked["a"].isnan().all() != choice
    assert picked["n"] == (3 if choice else 4)
