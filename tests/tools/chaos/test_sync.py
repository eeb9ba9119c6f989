"""The kernel is really asked to sync: what the model of the disk cannot see."""

import os

from craft import store


def test_a_write_and_a_publication_reach_the_kernel(tmp_path, monkeypatch):
    real, seen = os.fsync, []

    def fsync(descriptor):
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}") if os.path.exists("/proc/self/fd") else descriptor)
        real(descriptor)

    def two(path):
        path.write_bytes(b"2")

    monkeypatch.setattr(os, "fsync", fsync)
    store.write(tmp_path / "file", b"x")
    assert len(seen) == 2  # the file and its directory
    seen.clear()
    store.publish(tmp_path / "thing", {"a": b"1", "b": two}, {})
    assert len(seen) == 5  # two files, the manifest, the directory and its parent
