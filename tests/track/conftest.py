"""A small run that any sink can be driven through."""

import math

import pytest

from craft.track import Info, Report


@pytest.fixture
def drive():
    return _drive


def _drive(sink, directory, first=0, last=3, status="finished"):
    sink.start(Info(name="run", directory=directory, config={"lr": 0.1, "model": {"width": 4}}, steps=4, step=first))
    sink.message("hello [bold] \x1b[31m")
    for step in range(first + 1, last + 1):
        sink.report(Report(step, 10 * step, {"train/loss": 1 / step, "odd": math.nan, "far": math.inf}, {"seconds": 0.5}))
    sink.sample(last, "def \n", "[red]x\x1b[31m = 1\n")
    sink.finish(status, {"eval/loss": 0.5, "odd": math.nan})
