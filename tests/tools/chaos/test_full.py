"""A file system that is really full: what was saved stays, the sentence says so, and with space the bits are the same."""

import os
import shutil
import subprocess
import sys

import pytest

from tools.chaos import runs

SCRIPT = """
import sys
from pathlib import Path
from tools.chaos import runs
runs.go(Path(sys.argv[1]), Path(sys.argv[2]))
"""
MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && "$@"; code=$?; cp -r "$KEEP_FROM" "$KEEP_TO"; exit $code'


def possible():
    if not shutil.which("unshare"):
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not possible(), reason="a file system of its own cannot be mounted here")
@pytest.mark.parametrize("size", ["32k", "64k", "96k", "128k"])
def test_a_full_file_system_loses_nothing(tmp_path, root, size):
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    runs.go(tmp_path, tmp_path / "whole")
    expected = runs.ended(tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": str(root), "KEEP_FROM": str(small / "run"), "KEEP_TO": str(kept)}
    inner = [sys.executable, "-c", SCRIPT, str(tmp_path), str(small / "run")]
    command = ["unshare", "-rm", "sh", "-c", MOUNT, size, str(small), *inner]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr or "MB are needed" in done.stderr
    runs.go(tmp_path, kept)
    assert runs.ended(kept) == expected
