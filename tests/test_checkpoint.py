"""Checkpoints: exact round trips, refusals that name every difference, fallback, retention, and reading without Craft."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from craft import checkpoint, param, store, tree
from craft.step import State
from craft.store import disk
from craft.types import Tensor, Tree

EXTRA = {"mode": "none", "precision": "fp32"}


def state(step: int = 1000, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    params = {"blocks": [{"in": draw(3, 4), "out": draw(4, 3)}, {"in": draw(3, 4), "out": draw(4, 3)}], "norm": draw(3)}
    return State(
        step=torch.tensor(step),
        halted=torch.tensor(False),
        params=params,
        opt={"first": tree.map(lambda leaf: leaf.bfloat16(), params), "empty": torch.zeros(0, 2), "count": torch.tensor(3)},
        hyper={"optimizer.lr": torch.tensor(1e-3)},
        buffers=(),
        seed=torch.tensor(7),
        horizon=torch.tensor(2000),
    )


def save(directory: Path, value: Tree, **memory: Any) -> Path:
    return checkpoint.save(directory, value, memory=memory, extra=EXTRA)


def equal(a: Tree, b: Tree) -> bool:
    pairs = zip(tree.leaves(a), tree.leaves(b), strict=True)
    return tree.paths(a) == tree.paths(b) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def blank(value: Tree, device: str = "meta") -> Tree:
    return tree.map(lambda leaf: torch.empty_like(leaf, device=device), value)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, device: Any) -> None:
    path = save(tmp_path, state(), best=1.5)
    assert path == tmp_path / "step-00001000"
    loaded = checkpoint.load(path, blank(state(), device))
    assert type(loaded) is State
    assert equal(loaded, state())
    assert equal(checkpoint.load_params(path, blank(state().params, device)), state().params)


def test_what_is_loaded_has_memory_of_its_own(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    before = (path / "params.safetensors").read_bytes()
    loaded = checkpoint.load(path, blank(state()))
    for leaf in tree.leaves(loaded):
        leaf.zero_()
        assert leaf.untyped_storage().nbytes() == leaf.nbytes
    assert (path / "params.safetensors").read_bytes() == before
    loaded = checkpoint.load(path, blank(state()))
    for name in ("params.safetensors", "state.safetensors"):  # in place: a mapping would show it
        with (path / name).open("r+b") as file:
            file.write(bytes((path / name).stat().st_size))
    assert equal(loaded, state())


def test_the_manifest_says_what_there_is(tmp_path: Path) -> None:
    manifest = store.verify(save(tmp_path, state(), best=1.5, bad=[1, None]))
    assert (manifest["format"], manifest["step"]) == (1, 1000)
    assert manifest["memory"] == {"best": 1.5, "bad": [1, None]}
    assert manifest["extra"] == EXTRA
    assert manifest["leaves"]["params.blocks.1.in"] == {"dtype": "float32", "shape": [3, 4], "file": "params.safetensors"}
    assert manifest["leaves"]["opt.first.norm"] == {"dtype": "bfloat16", "shape": [3], "file": "state.safetensors"}
    assert manifest["leaves"].keys() == tree.named(state()).keys()


def test_safetensors_and_numpy_alone_can_read_the_params(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    arrays = load_file(path / "params.safetensors")
    assert sorted(arrays) == ["blocks.0.in", "blocks.0.out", "blocks.1.in", "blocks.1.out", "norm"]
    np.testing.assert_array_equal(arrays["blocks.1.in"], state().params["blocks"][1]["in"].numpy())


def test_the_same_state_writes_the_same_bytes(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", state(), a=1, b=2), save(tmp_path / "two", state(), b=2, a=1)
    shuffled = state()._replace(params=dict(reversed(state().params.items())))
    three = save(tmp_path / "three", shuffled, a=1, b=2)
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes() == (three / path.name).read_bytes()


class Generic(NamedTuple):
    step: Tensor
    halted: Tensor
    weights: dict[str, Tensor]


def test_a_state_of_ones_own_needs_no_params(tmp_path: Path) -> None:
    value = Generic(torch.tensor([4, 6]), torch.tensor([False, True]), {"a": torch.full((2,), torch.nan)})
    path = save(tmp_path, value)
    assert path.name == "step-00000006"
    assert sorted(os.listdir(path)) == ["MANIFEST.json", "state.safetensors"]
    assert checkpoint.load(path, blank(value)).weights["a"].isnan().all()


def test_shared_and_strided_leaves_are_saved_by_value(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    value = state()._replace(params={"a": base, "b": base, "c": base.T, "d": base[1], "e": torch.zeros(1).expand(5)})
    path = save(tmp_path, value)
    assert equal(checkpoint.load_params(path, blank(value.params)), value.params)


def test_a_lone_tensor_may_be_the_params(tmp_path: Path) -> None:
    value = state()._replace(params=torch.ones(3))
    path = save(tmp_path, value)
    assert equal(checkpoint.load(path, blank(value)), value)
    assert torch.equal(checkpoint.load_params(path, torch.empty(3)), torch.ones(3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_params_that_are_not_finite_are_never_saved(tmp_path: Path, bad: Any, dtype: Any) -> None:
    value = state()
    value.params["norm"] = torch.tensor([0.0, bad, 1.0], dtype=dtype)
    with pytest.raises(ValueError, match=r"params\.norm that is not finite"):
        save(tmp_path, value)
    assert checkpoint.find(tmp_path) == []
    value.params["norm"] = torch.tensor([1e300], dtype=torch.float64)
    save(tmp_path, value)


def test_what_is_no_tensor_and_memory_that_is_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got float at hyper\.a"):
        save(tmp_path, state()._replace(hyper={"a": 1.0}))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"inf at memory\.best"):
        save(tmp_path, state(), best=float("inf"))
    with pytest.raises(ValueError, match="leaf 'step'"):
        save(tmp_path, {"a": torch.ones(1)})
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match=r"0\.0 MB are free") as error:
        save(tmp_path, state())
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def swap(value: Tree) -> Tree:
    """Give the tree other leaves in each of the ways that a load must name."""
    first, second = value["blocks"]
    return {"blocks": [{"in": first["in"].T, "out": first["out"].double()}, {"renamed": second["in"], "out": second["out"]}]}


def test_every_difference_is_listed_with_its_name(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    like = blank(state()._replace(params=swap(state().params)))
    for load, target in ((checkpoint.load, like), (checkpoint.load_params, like.params)):
        with pytest.raises(checkpoint.Mismatch) as error:
            load(path, target)
        message = str(error.value)
        for part in (
            "params.blocks.0.in has shape [3, 4] where [4, 3] is expected",
            "params.blocks.0.out has dtype float32 where float64 is expected",
            "params.blocks.1.in is unexpected",
            "params.blocks.1.renamed is missing",
            "params.norm is unexpected",
        ):
            assert part in message
        assert message.index("blocks.0.in") < message.index("blocks.0.out") < message.index("norm")


@pytest.mark.parametrize("group", ["params", "opt", "hyper"])
def test_a_group_that_is_lost_or_new_is_refused(tmp_path: Path, group: Any) -> None:
    path = save(tmp_path, state())
    without: Any = {group: ()}
    with pytest.raises(checkpoint.Mismatch, match=f"{group}.* is unexpected"):
        checkpoint.load(path, blank(state()._replace(**without)))
    path = save(tmp_path / "other", state()._replace(**without))
    with pytest.raises(checkpoint.Mismatch, match=f"{group}.* is missing"):
        checkpoint.load(path, blank(state()))


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    with pytest.raises(checkpoint.Mismatch, match="; and 15 more; build"):
        checkpoint.load_params(path, {str(i): torch.ones(1) for i in range(20)})


def test_a_file_that_says_otherwise_than_its_manifest_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    save_file({"norm": np.zeros(4, np.float32)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    manifest = {
        "format": 1,
        "step": 1,
        "leaves": {"params.norm": {"dtype": "float32", "shape": [3], "file": "params.safetensors"}},
    }
    path = store.publish(tmp_path / "step-1", {"params.safetensors": content}, manifest)
    with pytest.raises(checkpoint.Mismatch, match=r"has shape \[4\] where \[3\]"):
        checkpoint.load_params(path, {"norm": torch.zeros(3)})
    path = store.publish(tmp_path / "step-1", {"params.safetensors": b"\xff" * 100}, manifest)
    with pytest.raises(store.Corrupt, match="cannot be read"):
        checkpoint.load_params(path, {"norm": torch.zeros(3)})


def test_checkpoints_are_found_by_step_and_not_by_time(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path / "nowhere") == []
    assert checkpoint.latest(tmp_path / "nowhere", pytest.fail) is None
    for step in (10**9, 999_999_999, 5, 20):
        os.utime(save(tmp_path, state(step)), (0, step))
    (tmp_path / "step-x").mkdir()
    (tmp_path / ".tmp-step-00000030-0123456789abcdef").mkdir()
    assert [found.step for found in checkpoint.find(tmp_path)] == [5, 20, 999_999_999, 10**9]
    newest = checkpoint.latest(tmp_path, pytest.fail)
    assert newest is not None
    assert (newest.step, newest.path.name) == (10**9, "step-1000000000")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["params.safetensors", "state.safetensors", "MANIFEST.json"])
@pytest.mark.parametrize("fault", ["flip", "cut", "missing"])
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path: Path, name: Any, fault: Any) -> None:
    save(tmp_path, state(1))
    path = save(tmp_path, state(2))
    if fault == "flip":
        spoil(path / name)
    else:
        os.truncate(path / name, 9) if fault == "cut" else (path / name).unlink()
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert name in said[0]
    assert "step-00000002" in said[0]
    assert [found.step for found in checkpoint.find(tmp_path)] == (
        [1, 2] if fault == "flip" and name != "MANIFEST.json" else [1]
    )
    with pytest.raises(store.Corrupt, match=name):
        checkpoint.load(path, blank(state(2)))


def test_where_all_are_damaged_nothing_starts_afresh(tmp_path: Path) -> None:
    spoil(save(tmp_path, state(1)) / "params.safetensors")
    said: list[str] = []
    with pytest.raises(store.Corrupt, match="all 1 checkpoints"):
        checkpoint.latest(tmp_path, said.append)
    assert len(said) == 1


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    save(tmp_path, state(1))
    path = store.publish(tmp_path / "step-00000002", {}, {"format": 999, "step": 2})
    for call in (
        lambda: checkpoint.latest(tmp_path, pytest.fail),
        lambda: checkpoint.load(path, blank(state())),
        lambda: checkpoint.prune(tmp_path, 1),
    ):
        with pytest.raises(ValueError, match="upgrade Craft"):
            call()


def test_a_copy_elsewhere_loads(tmp_path: Path) -> None:
    path = save(tmp_path / "a", state())
    shutil.copytree(path, tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert equal(checkpoint.load(tmp_path / "b", blank(state())), state())


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, state(), best=1)
    path = save(tmp_path, state(seed=1), best=2)
    assert equal(checkpoint.load(path, blank(state())), state(seed=1))
    assert os.listdir(tmp_path) == ["step-00001000"]


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, state(step))
    assert [path.name for path in checkpoint.prune(tmp_path, 2)] == ["step-00000001", "step-00000002"]
    assert sorted(os.listdir(tmp_path)) == ["step-00000003", "step-00000004"]
    assert checkpoint.prune(tmp_path, 2) == []
    with pytest.raises(ValueError, match="keep=0"):
        checkpoint.prune(tmp_path, 0)


def test_prune_never_takes_the_last_whole_one(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, state(step))
    for step in (2, 3, 4):
        spoil(tmp_path / f"step-0000000{step}" / "state.safetensors")
    assert checkpoint.prune(tmp_path, 1) == []
    found = checkpoint.latest(tmp_path, lambda text: None)
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("name", ["save", "prune"])
def test_after_a_failure_of_any_operation_the_former_state_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    def act(directory: Path) -> object:
        return save(directory, state(3)) if name == "save" else checkpoint.prune(directory, 1)

    for n in range(1, 100):
        directory = tmp_path / str(n)
        for step in (1, 2):
            save(directory, state(step))
        with monkeypatch.context() as patch:
            patch.setattr(disk, "HOOK", Failing(n))
            try:
                act(directory)
                break
            except OSError:
                pass
        store.sweep_litter(directory)
        found = checkpoint.latest(directory, pytest.fail)
        assert found is not None
        assert found.step in ((2, 3) if name == "save" else (2,))
        assert equal(checkpoint.load(found.path, blank(state())), state(found.step))
    assert n > 5


class Failing:
    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, "Input/output error", str(path))


def test_the_manifest_is_readable_json(tmp_path: Path) -> None:
    text = (save(tmp_path, state()) / "MANIFEST.json").read_text(encoding="utf-8")
    assert json.loads(text)["files"].keys() == {"params.safetensors", "state.safetensors"}
    assert str(tmp_path) not in text


@pytest.mark.gpu
def test_a_state_on_a_gpu_writes_the_same_bytes(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    one, two = save(tmp_path / "one", state()), save(tmp_path / "two", tree.to(state(), "cuda"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


# -- formats that were released


def test_a_checkpoint_of_the_first_format_is_read_and_computes_what_it_did(root: Path) -> None:
    """Written once; what reads it may change, the files never do."""
    from craft import losses, models, types
    from craft.mixers import Attention, FeedForward

    [found] = checkpoint.find(root / "tests" / "golden" / "format-1")
    assert (found.step, found.manifest["format"], found.manifest["memory"]["best"]["step"]) == (3, 1, 2)
    model = models.Sequence(width=8, depth=1, pattern=(Attention(heads=2), FeedForward(expand=1.0))).build(vocabulary=5)
    params = checkpoint.load_params(found.path, param.materialise(model.spec, seed=1))
    ids_BT = torch.arange(24).reshape(2, 12) % 5
    batch = types.Batch(ids_BT[:, :-1], ids_BT[:, 1:], torch.ones(2, 11), torch.arange(2))
    loss, _ = losses.next_token(model)(params, batch, types.Context())
    assert float(loss) == pytest.approx(1.590572476387024, rel=1e-5)
