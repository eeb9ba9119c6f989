"""Every sink, through everything that a run does with it."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from craft.track import Console, Info, Jsonl, Many, Report, TensorBoard, Wandb

SINKS: dict[str, Callable[[], Any]] = {
    "jsonl": Jsonl,
    "console": lambda: Console(io.StringIO()),
    "tensorboard": TensorBoard,
    "wandb": lambda: Wandb("offline"),
    "many": lambda: Many([Jsonl(), Console(io.StringIO())]),
}


class Broken:
    """A sink that raises in one method."""

    def __init__(self, method):
        self.method, self.calls = method, []

    def __getattr__(self, name):
        def call(*values):
            self.calls.append(name)
            if name == self.method:
                raise RuntimeError("no\nluck")

        return call


@pytest.mark.parametrize("name", SINKS)
def test_sink_takes_a_run_and_its_resumption(name, drive, tmp_path):
    drive(SINKS[name](), tmp_path, last=3, status="stopped")
    drive(SINKS[name](), tmp_path, first=2, last=4)


@pytest.mark.parametrize("name", SINKS)
def test_sink_hears_messages_before_its_start_and_may_end_without_one(name, drive, tmp_path):
    sink = SINKS[name]()
    sink.message("early")
    sink.finish("failed", {})
    sinks = Many([SINKS[name](), Jsonl()])
    sinks.message("early")
    drive(sinks, tmp_path)
    assert len(sinks.trackers) == 2
    assert "early" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("method", ["start", "report", "sample", "message", "finish"])
def test_a_sink_that_raises_is_named_once_and_left_out(method, drive, tmp_path):
    out, broken = io.StringIO(), Broken(method)
    drive(Many([Jsonl(), broken, Console(out)]), tmp_path)
    assert broken.calls.count(method) == 1
    assert broken.calls[-1] == method
    log = (tmp_path / "log.txt").read_text()
    assert log.count(f"Broken failed in {method} and is left out from here on: RuntimeError: no\\nluck") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert "finished after 3 updates" in out.getvalue()


def test_an_interrupted_finish_still_closes_the_others(drive, tmp_path):
    class Interrupted(Broken):
        def finish(self, status, summary):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(Many([Jsonl(), Interrupted("")]), tmp_path)
    assert "finished" in (tmp_path / "log.txt").read_text()


def test_tensorboard_reads_back_and_hides_what_is_made_again(drive, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drive(TensorBoard(), tmp_path, last=3)
    drive(TensorBoard(), tmp_path, first=2, last=4)
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in read.Scalars("train/loss")] == [1, 2, 3, 4]


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'craft\[tensorboard\]'"):
        TensorBoard()


def test_the_record_is_vital(tmp_path):
    """A run whose record cannot be written must not go on as if it were."""
    many = Many([Jsonl(), Broken("nothing")])
    many.start(Info(name="run", directory=tmp_path, config={}, steps=3))
    with pytest.raises(ValueError, match="got a metric named step"):
        many.report(Report(1, 10, {"step": 1.0}))
    many.finish("failed", {})
