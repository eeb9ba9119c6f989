"""The allocator keeps what is freed, unless the user chose settings."""

import sys

import pytest
import torch

from craft.engine import keep_memory, peak_megabytes, resident_bytes
from craft.engine.allocator import return_memory, trim

glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is of glibc")


@glibc
def test_glibc_is_told(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert return_memory()
    assert keep_memory()


@glibc
def test_what_is_free_between_used_blocks_is_given_back(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert keep_memory()
    blocks = [torch.ones(1 << 18) for _ in range(64)]
    del blocks[::2]
    kept = resident_bytes()
    trim()
    assert kept - resident_bytes() > 24 << 20
    assert all(bool((block == 1).all()) for block in blocks)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_user_win(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_memory()
    assert not return_memory()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert not keep_memory()


def test_the_peak_is_in_megabytes_and_never_falls():
    before = peak_megabytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    during = peak_megabytes()
    del block
    assert 50 < before < 16_000
    assert peak_megabytes() >= during >= before
