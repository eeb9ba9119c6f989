"""A process that is killed before any operation of the disk leaves the old or the new."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from craft import store

CHILD = """
import os, signal, sys
from pathlib import Path
from craft import store
from craft.store import disk
assert "torch" not in sys.modules
root, points = Path(sys.argv[1]), sys.argv[2:]
def kill_at(n):
    def hook(name, path, detail):
        nonlocal n
        n -= 1
        if n == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return hook
for n in map(int, points):
    child = os.fork()
    if child == 0:
        disk.HOOK = kill_at(n)
        new = {"a.bin": b"new" * 700, "c.bin": lambda path: path.write_bytes(bytes(range(256)))}
        store.publish(root / str(n) / "thing", new, {"n": 2})
        store.write(root / str(n) / "file", b"new")
        store.remove(root / str(n) / "gone")
        os._exit(0)
    print(n, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_a_process_killed_before_any_operation_leaves_old_or_new(tmp_path: Path, thing: Any) -> None:
    total = 60
    for n in range(1, total + 1):
        thing.prepare(tmp_path / str(n))
        store.publish(tmp_path / str(n) / "gone", thing.old, {})
    points = [str(n) for n in range(1, total + 1)]
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    child = [sys.executable, "-c", CHILD, str(tmp_path), *points]
    done = subprocess.run(child, env=environment, capture_output=True, text=True, check=True)
    codes = [int(line.split()[1]) for line in done.stdout.splitlines()]
    killed = codes.count(-signal.SIGKILL)
    assert codes == [-signal.SIGKILL] * killed + [0] * (total - killed)
    assert 25 < killed < total
    outcomes = [survey(thing, tmp_path / point) for point in points]
    assert outcomes[0] == (False, False, True)
    assert outcomes[-1] == (True, True, False)
    assert all(later[0] >= earlier[0] for earlier, later in itertools.pairwise(outcomes))


def survey(thing: Any, parent: Path) -> tuple[bool, bool, bool]:
    store.sweep_litter(parent)
    found = thing.content(parent / "thing")
    assert found in (thing.old, thing.new)
    assert (parent / "file").read_bytes() in (b"old", b"new")
    if (parent / "gone").exists():
        assert thing.content(parent / "gone") == thing.old
    assert set(os.listdir(parent)) <= {"thing", "file", "gone"}
    return found == thing.new, (parent / "file").read_bytes() == b"new", (parent / "gone").exists()
