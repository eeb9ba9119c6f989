"""Saving in the background: a copy is what is written, a failure is told and costs nothing but itself."""

import errno
import os
import threading
from typing import NamedTuple

import attrs
import pytest
import torch

from craft import checkpoint
from craft.run import Checkpoints
from craft.saving import NotSavedError, Saver
from craft.store import disk, manifest


class State(NamedTuple):
    """Two leaves and a step."""

    params: dict
    step: torch.Tensor


def state(step):
    return State({"w": torch.full((4,), float(step))}, torch.tensor(step))


@pytest.fixture
def told():
    """Lines that were told."""
    return []


@pytest.fixture
def saver(tmp_path, told):
    """Make a saver with changes to how it saves."""
    made = []

    def make(**changes):
        made.append(Saver(tmp_path / "checkpoints", attrs.evolve(Checkpoints(keep=2), **changes), told.append, -1))
        return made[-1]

    yield make
    disk.HOOK = None
    for one in made:
        one.finish(quiet=True)


def steps(saver):
    return [found.step for found in checkpoint.find(saver.directory)]


def failing_on(name, number=1, code=errno.ENOSPC):
    left = [number]

    def hook(operation, path, detail):
        if operation == name:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(code, os.strerror(code), str(path))

    return hook


def test_what_is_written_is_the_state_at_the_call(saver):
    one, go = saver(), threading.Event()

    def wait(operation, path, detail):
        if operation == "fsync":
            go.wait(10)

    disk.HOOK = wait
    value = state(3)
    one.save(3, value, {}, {})
    value.params["w"].fill_(-1.0)  # as a compiled step does, which overwrites its state
    assert steps(one) == []  # the call came back while the disk was still being waited for
    assert one.durable == -1
    go.set()
    one.finish()
    assert one.durable == 3
    loaded = checkpoint.load(checkpoint.find(one.directory)[0].path, value)
    assert loaded.params["w"].tolist() == [3.0] * 4


def test_a_save_waits_for_the_one_before(saver):
    one = saver()
    for step in range(1, 6):
        one.save(step, state(step), {}, {})
    one.finish()
    assert steps(one) == [4, 5]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["mkdir", "fill", "open", "write", "fsync", "fsync_dir", "rename"])
def test_a_failure_is_told_and_the_next_save_tries_again(saver, told, operation, code):
    one = saver()
    one.save(1, state(1), {}, {})
    one.save(2, state(2), {}, {})
    one.check()
    one._land()
    disk.HOOK = failing_on(operation, code=code)
    one.save(3, state(3), {}, {})
    one._land()
    disk.HOOK = None
    [line] = told
    assert f"the checkpoint of step 3 was not written: [Errno {code}]" in line
    assert "the last good one is that of step 2. Training goes on" in line
    one.save(3, state(3), {}, {})
    one.finish()
    assert one.durable == 3
    assert 3 in steps(one)
    assert not list(one.directory.glob(".tmp*"))


def test_the_newest_state_that_is_not_saved_is_an_error_at_the_end(saver, told):
    one = saver()
    one.save(1, state(1), {}, {})
    one._land()
    disk.HOOK = failing_on("fsync")
    one.save(2, state(2), {}, {})
    with pytest.raises(
        NotSavedError,
        match=r"the state of step 2 could not be saved \(.*No space left.*\); the last good one is that of step 1",
    ):
        one.finish()
    assert len(told) == 1
    assert steps(one) == [1]


def test_strict_raises_at_the_next_step(saver, told):
    one = saver(strict=True)
    disk.HOOK = failing_on("fsync")
    one.save(1, state(1), {}, {})
    one._flying[1].exception()
    with pytest.raises(NotSavedError, match=r"the checkpoint of step 1 was not written: .* there is none before it"):
        one.check()
    assert told == []


def test_the_same_step_is_saved_once(saver):
    one, opened = saver(), []
    disk.HOOK = lambda name, path, detail: opened.append(path) if name == "mkdir" else None
    one.save(1, state(1), {}, {})
    one.save(1, state(1), {}, {})
    one.finish()
    assert len(opened) == 1


def test_old_ones_that_cannot_be_deleted_fail_no_save(saver, told):
    one = saver(keep=1)
    one.save(1, state(1), {}, {})
    one._land()
    disk.HOOK = failing_on("unlink", code=errno.EACCES)
    one.save(2, state(2), {}, {})
    one.finish()
    assert "old checkpoints could not be deleted" in told[0]
    assert one.durable == 2


def test_some_are_kept_for_good(saver):
    one = saver(keep=1, keep_every=3)
    for step in range(1, 9):
        one.save(step, state(step), {}, {}, best=2)
    one.finish()
    assert steps(one) == [2, 3, 6, 8]


def hashed(monkeypatch):
    """Note which files of checkpoints are read to be hashed."""
    seen, real = [], manifest.sha256

    def sha256(path):
        seen.append(path.parent.name)
        return real(path)

    monkeypatch.setattr(manifest, "sha256", sha256)
    return seen


def test_what_it_has_hashed_itself_is_not_read_again(saver, monkeypatch):
    before, one = saver(), saver()
    before.save(1, state(1), {}, {})
    before.finish()
    seen = hashed(monkeypatch)
    for step in (2, 3, 4):
        one.save(step, state(step), {}, {})
    one.finish()
    assert steps(one) == [3, 4]
    assert set(seen) == {"step-00000001"}  # another process may have had faults


def test_what_it_has_hashed_and_others_cut_short_does_not_count(saver):
    one = saver()
    for step in (1, 2):
        one.save(step, state(step), {}, {})
    one._land()
    (one.directory / "step-00000002" / "params.safetensors").write_bytes(b"")
    one.save(3, state(3), {}, {})
    one.finish()
    assert steps(one) == [1, 3]
