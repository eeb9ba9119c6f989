"""A small run that any sink can be driven through, and what W&B would get of it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from craft.track import Info, Report

HOUSE = str(Path(__file__).parents[2])
READ = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

def records(data):  # LevelDB's log format after a header of 7 bytes
    at, parts = 7, []
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts.append(data[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last part of one
            yield Record.FromString(b"".join(parts))
            parts = []

def values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

found = {"history": [], "summary": {}, "config": {}, "axes": {}, "artifacts": [], "run": {}, "exit": None}
for record in records(open(sys.argv[1], "rb").read()):
    kind = record.WhichOneof("record_type")
    if kind == "history":
        found["history"].append(values(record.history.item))
    elif kind == "summary":
        found["summary"] |= values(record.summary.update)
    elif kind == "metric":
        found["axes"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
    elif kind == "artifact" and record.artifact.type != "run_table":  # what a logged table is, too
        contents = [entry.path for entry in record.artifact.manifest.contents]
        found["artifacts"].append([record.artifact.name, record.artifact.type, sorted(record.artifact.aliases), contents])
    elif kind == "run":
        found["run"] = {name: getattr(record.run, name) for name in ("run_id", "display_name", "project", "run_group")}
        found["config"] = values(item for item in record.run.config.update if item.key != "_wandb")
    elif kind == "exit":
        found["exit"] = record.exit.exit_code
print(json.dumps(found))
"""


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


@pytest.fixture
def mirrored():
    """Read what the offline runs of a directory hold, the oldest first."""
    return _mirrored


def _mirrored(directory):
    files = sorted((directory / "wandb").glob("offline-run-*/*.wandb"))
    return [_read(path) for path in files]


def _read(path):
    environment = {**os.environ, "PYTHONPATH": HOUSE, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, env=environment, check=True)
    found = json.loads(run.stdout)
    return {**found, "history": [_shown(row) for row in found["history"]], "summary": _shown(found["summary"])}


def _shown(values):
    """Return the values that are the run's, as text (nan differs from itself), without W&B's clock and random names."""
    names = sorted(name for name in values if not name.startswith("_") and not name.endswith("artifact_path"))
    return {name: repr(values[name]) for name in names}
