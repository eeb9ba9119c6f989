from __future__ import annotations

import pytest
import torch

from craft import optim, param, tree
from craft.types import Context, Transform, Tree

SPEC = {
    "embed": param.Param((3, 2), param.Normal(1.0), ("V", "D")),
    "blocks": [{"up": param.Param((2, 2), param.Normal(1.0), ("D", "F"))} for _ in range(11)],
    "head": param.Param((2, 3), param.Normal(1.0), ("D", "V")),
}
PARAMS = param.materialise(SPEC, 0)


def updates_of(transform: Transform) -> Tree:
    ones = tree.map(torch.ones_like, PARAMS)
    return transform.update(ones, transform.init(PARAMS), PARAMS, Context())[0]


def test_each_leaf_is_moved_once_by_its_own_transform() -> None:
    parts = {"embed": optim.scale(2.0), "head": optim.scale(3.0)}
    moved = tree.named(updates_of(optim.route_by_path(SPEC, parts, default=optim.scale(5.0))))
    assert moved.keys() == tree.named(PARAMS).keys()
    for path, leaf in moved.items():
        assert torch.equal(leaf, torch.full_like(leaf, {"embed": 2.0, "head": 3.0}.get(path, 5.0))), path


def test_leaves_keep_their_place() -> None:
    identity = optim.route_by_path(SPEC, {r"blocks\.\d\.": optim.identity(), "e": optim.identity()}, default=optim.identity())
    moved, _ = identity.update(PARAMS, identity.init(PARAMS), PARAMS, Context())
    assert tree.flatten(moved)[1] == tree.flatten(PARAMS)[1]
    assert all(a is b for a, b in zip(tree.leaves(moved), tree.leaves(PARAMS), strict=True))


def test_groups_are_a_partition() -> None:
    labels = [path[0] for path in tree.paths(SPEC)]
    found = optim.groups(SPEC, labels)
    assert sorted(path for group in found.values() for path in group) == sorted(tree.paths(SPEC))
    assert found["h"] == {"head": SPEC["head"]}


def test_the_first_pattern_counts() -> None:
    moved = updates_of(optim.route_by_path(SPEC, {"head": optim.scale(2.0), "": optim.scale(3.0)}))
    assert moved["head"][0, 0] == 2.0
    assert moved["embed"][0, 0] == 3.0


def test_groups_serve_masks_of_their_own() -> None:
    labels = ["head" if path == "head" else "rest" for path in tree.paths(SPEC)]
    mask = param.decayed(optim.groups(SPEC, labels)["head"])
    moved = updates_of(optim.route(SPEC, labels, {"head": optim.add_decay(1.0, mask), "rest": optim.identity()}))
    torch.testing.assert_close(moved["head"], 1.0 + PARAMS["head"])


def test_a_pattern_without_a_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern 'bias' gets no leaf"):
        optim.route_by_path(SPEC, {"bias": optim.identity()}, default=optim.identity())


def test_a_pattern_that_is_hidden_by_another_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern 'head' gets no leaf"):
        optim.route_by_path(SPEC, {"": optim.identity(), "head": optim.identity()})


def test_a_default_without_a_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="the default gets no leaf"):
        optim.route_by_path(SPEC, {"": optim.identity()}, default=optim.identity())


def test_a_leaf_without_a_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="embed, head match none"):
        optim.route_by_path(SPEC, {"blocks": optim.identity()})


def test_labels_and_transforms_must_match() -> None:
    labels = ["one"] * len(tree.leaves(SPEC))
    with pytest.raises(ValueError, match="give every label one transform"):
        optim.route(SPEC, labels, {"one": optim.identity(), "two": optim.identity()})
    with pytest.raises(ValueError, match="give every label one transform"):
        optim.route(SPEC, labels, {})
    with pytest.raises(ValueError, match="1 labels for 13 leaves"):
        optim.route(SPEC, ["one"], {"one": optim.identity()})


def test_parameters_of_another_structure_are_refused() -> None:
    with pytest.raises(ValueError, match="differ from the spec"):
        optim.route_by_path(SPEC, {"": optim.identity()}).init({"embed": torch.zeros(1)})
