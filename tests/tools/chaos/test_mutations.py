"""Each guard stands where the list says, and one that is taken away is missed."""

import pytest

from tools.chaos.mutations import MUTATIONS, ROOT, mutate


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_each_guard_is_there_once(mutation):
    assert (ROOT / mutation.path).read_text(encoding="utf-8").count(mutation.guard) == 1
    assert all((ROOT / name).exists() for name in mutation.tests if name.startswith("tests/"))


def test_a_guard_that_is_taken_away_is_missed(tmp_path):
    found = mutate(tmp_path, only="the seal of a manifest")
    assert (found.tried, found.seen, found.unseen) == (1, 1, [])
