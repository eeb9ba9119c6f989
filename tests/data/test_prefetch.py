"""The next batch is made ahead, and is the same."""

import threading

import pytest

from craft.data import Prefetch


def test_batches_come_as_asked_for_and_one_ahead():
    made, event = [], threading.Event()

    def batch(step):
        made.append((step, threading.current_thread().name))
        if step == 1:
            event.set()
        return step * step

    batches = Prefetch(batch, 5)
    assert batches(0) == 0
    assert event.wait(5)
    assert [batches(step) for step in (1, 2, 3, 4)] == [1, 4, 9, 16]
    batches.close()
    assert [step for step, _ in made] == [0, 1, 2, 3, 4]
    assert made[0][1] == threading.current_thread().name
    assert all(name.startswith("batches") for _, name in made[1:])


def test_another_step_than_the_next_is_made_at_once():
    batches = Prefetch(lambda step: step, 100)
    assert [batches(step) for step in (3, 50, 51, 0)] == [3, 50, 51, 0]
    batches.close()


def test_an_error_comes_where_its_batch_is_asked_for():
    def batch(step):
        if step == 2:
            raise ValueError("no such batch")
        return step

    batches = Prefetch(batch, 9)
    assert [batches(0), batches(1)] == [0, 1]
    with pytest.raises(ValueError, match="no such batch"):
        batches(2)
    batches.close()
