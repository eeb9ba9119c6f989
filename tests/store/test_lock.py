"""Locks of directories: one process at a time, until it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from craft import store

HOLDER = """
import sys, time
from craft import store
with store.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_shuts_out_others_until_its_owner_dies(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(store.Busy, match=f"process {child.pid} on "), store.lock(tmp_path):
            pass
        child.kill()
        child.wait()
    with store.lock(tmp_path):
        pass


def test_a_lock_is_taken_once_and_given_back(tmp_path: Path) -> None:
    with store.lock(tmp_path / "run"):
        with pytest.raises(store.Busy, match=str(os.getpid())), store.lock(tmp_path / "run"):
            pass
        with pytest.raises(store.Busy), store.lock(tmp_path / "run"):
            pass
    with pytest.raises(RuntimeError), store.lock(tmp_path / "run"):
        raise RuntimeError
    with store.lock(tmp_path / "run"):
        pass


FORKER = """
import os, sys, time
from craft import store
with store.lock(sys.argv[1]):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    sys.stdin.readline()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_worker_that_outlives_its_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORKER, str(tmp_path)], stdin=pipe, stdout=pipe, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        worker = int(owner.stdout.readline())
        owner.stdin.close()
        owner.wait()
        try:
            with store.lock(tmp_path):
                os.kill(worker, 0)
        finally:
            os.kill(worker, signal.SIGKILL)
