from tools.bench.contestants import KEPT
from tools.bench.pool import environment


def test_a_peer_has_the_allocator_settings_that_its_row_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    own, kept = (environment(tmp_path, 1, kept=kept) for kept in (False, True))
    assert not [name for name in own if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]
    assert kept["GLIBC_TUNABLES"] == KEPT
    assert own["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path))
    assert own["OMP_NUM_THREADS"] == "1"
