"""Every operation of the disk fails in turn: what is there is the old or the new, and no litter."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from craft import store


@pytest.mark.parametrize("n", [2, 3])
def test_a_failure_leaves_no_litter(tmp_path: Path, thing: Any, failing: Any, hook: Any, n: int) -> None:
    acts: list[Callable[[], None]] = [lambda: store.write(tmp_path / "file", b"x"), lambda: thing.publish_new(tmp_path)]
    for act in acts:
        hook(failing(n, errno.ENOSPC, False))
        with pytest.raises(OSError, match="No space"):
            act()
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("replacing", [False, True])
def test_publish_is_whole_after_a_failure_of_any_operation(
    tmp_path: Path, thing: Any, failing: Any, count_operations: Any, hook: Any, replacing: Any, code: Any, forever: Any
) -> None:
    parent = tmp_path / "probe"
    if replacing:
        thing.publish_old(parent)
    operations = count_operations(lambda: thing.publish_new(parent))
    assert {"mkdir", "open", "write", "fill", "fsync", "fsync_dir", "rename"} <= set(operations)
    for n in range(1, len(operations) + 1):
        check_failure(thing, tmp_path / str(n), hook, failing(n, code, forever), replacing)


def check_failure(thing: Any, parent: Path, hook: Any, fault: Any, replacing: bool) -> None:
    parent.mkdir()
    if replacing:
        thing.publish_old(parent)
    hook(fault)
    try:
        thing.publish_new(parent)
        failed = None
    except OSError as error:
        failed = error.errno
    hook(None)
    store.sweep_litter(parent)
    assert failed in (None, fault.code)
    allowed = [thing.new] if failed is None else [thing.new, thing.old] if replacing else [thing.new, None]
    assert (thing.content(parent / "thing") if (parent / "thing").exists() else None) in allowed
    assert set(os.listdir(parent)) <= {"thing"}
    thing.publish_new(parent)
    assert thing.content(parent / "thing") == thing.new


@pytest.mark.parametrize("name", ["write", "remove"])
def test_write_and_remove_are_whole_after_a_failure_of_any_operation(
    tmp_path: Path, thing: Any, failing: Any, count_operations: Any, hook: Any, name: Any
) -> None:
    def act(parent: Path) -> None:
        store.write(parent / "file", b"new") if name == "write" else store.remove(parent / "thing")

    thing.prepare(tmp_path / "probe")
    operations = count_operations(lambda: act(tmp_path / "probe"))
    for n in range(1, len(operations) + 1):
        parent = tmp_path / str(n)
        thing.prepare(parent)
        hook(failing(n, errno.EIO, False))
        with pytest.raises(OSError, match="Input/output"):
            act(parent)
        hook(None)
        store.sweep_litter(parent)
        assert (parent / "file").read_bytes() in (b"old", b"new")
        assert not (parent / "thing").exists() or thing.content(parent / "thing") == thing.old
        assert set(os.listdir(parent)) <= {"file", "thing"}


def test_a_failed_replacement_puts_the_former_directory_back_at_once(tmp_path: Path, thing: Any, hook: Any) -> None:
    thing.publish_old(tmp_path)
    renames = 0

    def fail_second_rename(name: str, path: Path, detail: Any) -> None:
        nonlocal renames
        renames += name == "rename"
        if name == "rename" and renames == 2:
            raise OSError(errno.EIO, "Input/output error")

    hook(fail_second_rename)
    with pytest.raises(OSError, match="Input/output"):
        thing.publish_new(tmp_path)
    hook(None)
    assert os.listdir(tmp_path) == ["thing"]
    assert thing.content(tmp_path / "thing") == thing.old
