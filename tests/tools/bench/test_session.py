import pytest

from tools.bench.pool import NotRun


def test_a_program_is_timed_and_its_memory_measured(session):
    ran = session.program(["-c", "x = bytearray(60_000_000); print('done')"])
    assert ran.output.strip() == "done"
    assert 0 < ran.seconds < 60
    assert ran.peak_mb > 55


def test_a_program_that_fails_is_not_run(session):
    with pytest.raises(NotRun, match="ended with 1: ValueError: no"):
        session.program(["-c", "raise ValueError('no')"])


def test_an_empty_folder_is_gone_afterwards(session):
    with session.empty() as folder:
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_peers_can_be_chosen(session):
    assert session.takes("jax_optax")
