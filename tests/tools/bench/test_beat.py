import io
import json
import sys

import pytest

from tools.bench.beat import Beat, Finished, forget_peak, memory


def talk(commands):
    answers = io.StringIO()
    return Beat(io.StringIO(commands), answers), lambda: [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_burst_is_answered_when_it_is_done_and_its_loss_read_once():
    beat, said = talk("steps 3\nmemory\nquit\n")
    read: list[float] = []

    def loss(value):
        read.append(value)
        return value

    beat.start(parameters=5)
    beat(lambda: loss(1.0))
    beat(lambda: loss(2.0))
    assert said() == [{"parameters": 5}]
    with pytest.raises(Finished):
        beat(lambda: loss(3.0))
    _, burst, sizes = said()
    assert read == [3.0]
    assert burst["loss"] == 3.0
    assert len(burst["each"]) == 3
    assert burst["seconds"] == pytest.approx(sum(burst["each"]))
    assert sizes["peak_mb"] >= sizes["now_mb"] > 0


def test_the_end_of_the_input_ends_the_worker():
    with pytest.raises(Finished):
        talk("")[0].start(parameters=1)


def test_an_unknown_command_is_said():
    beat, said = talk("dance\n")
    with pytest.raises(Finished):
        beat.start()
    assert "'dance'" in said()[-1]["error"]


def test_no_except_exception_catches_the_end():
    assert not issubclass(Finished, Exception)


def test_memory_is_that_of_this_process():
    assert memory()["now_mb"] > 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells and forgets the peak")
def test_the_peak_counts_from_where_it_was_forgotten():
    block = bytearray(96 << 20)
    block[::4096] = b"x" * len(block[::4096])
    before = memory()["peak_mb"]
    del block
    forget_peak()
    assert memory()["peak_mb"] < before - 64
