"""A recorded run in W&B: the history of its live mirror, pushed once or twice, and what is no run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from craft import record, store
from craft.errors import UsageError
from craft.track import Info, Jsonl, Many, Report, Wandb, push

HOUSE = str(Path(__file__).parents[2])
FACTS: dict[str, Any] = {
    "experiment": {"module": "experiments.char_1m", "name": "char_1m", "values": {"lr": 0.125}},
    "run": {"track": {"project": "configured", "group": "widths"}},
    "steps": 4,
}


def go(directory, *more):
    command = [sys.executable, "-m", "craft", "track", "push", str(directory), "--mode", "offline", *more]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": HOUSE}, capture_output=True, text=True)


def pushed(directory, *more):
    run = go(directory, *more)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def train(directory, sinks, status="finished", first=0, last=4):
    """Do what the loop does: a sample comes before the numbers of its step."""
    if not first:
        directory.mkdir()
        record.write(directory, FACTS, None)
    many = Many(sinks)
    track = FACTS["run"]["track"]
    many.start(Info(name=directory.name, directory=directory, config=FACTS, steps=4, step=first, **track))
    values = {}
    for step in range(first + 1, last + 1):
        if step % 2 == 0:
            values["eval/loss"] = 1.5 / step
            many.sample(step, "def \n", "[red]x\x1b[31m = 1  \n\nnaïve\n")
        numbers = {"train/loss": 1 / 3 / step, "far": float("inf"), **values}
        many.report(Report(step, 10 * step, numbers, {"seconds": 0.1 * step, "memory_mb": 640.25}))
    many.finish(status, values) if status else sinks[0].finish("cut", {})


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_a_pushed_run_has_the_history_of_its_live_mirror(tmp_path, mirrored, status):
    run = tmp_path / "run"
    train(run, [Jsonl(), Wandb("offline")], status)
    time.sleep(1.0)  # wandb names directories by the second
    shown = pushed(run)
    live, after = mirrored(run)
    assert live == after
    assert len(live["history"]) == 4
    assert live["history"][3]["time/memory_mb"] == "640.25"
    assert live["history"][3]["far"] == "nan"
    assert (live["summary"]["eval/loss"], live["summary"]["status"]) == ("0.375", repr(status))
    assert live["run"]["project"] == "configured"
    assert shown.startswith(f"{run}: 4 reports, 2 samples\noffline; send it later with `wandb sync {run}/wandb/offline-run-")
    tables = [json.loads(path.read_text()) for path in sorted((run / "wandb").glob("offline-run-*/files/media/table/*.json"))]
    texts = [[step, '"def \\n"', "[red]x\\x1b[31m = 1\n\nnaïve"] for step in (2, 4)]
    assert sorted((table["data"] for table in tables), key=len) == [texts[:1], texts[:1], texts, texts]


def test_a_resumed_run_and_its_push_hold_the_same(tmp_path, mirrored):
    run = tmp_path / "run"
    train(run, [Jsonl(), Wandb("offline")], "stopped", last=3)
    time.sleep(1.0)
    train(run, [Jsonl(), Wandb("offline")], first=2)
    time.sleep(1.0)
    pushed(run)
    _, live, after = mirrored(run)
    assert live == after
    assert [row["step"] for row in after["history"]] == ["1", "2", "3", "4"]


def test_a_second_push_is_the_same_run(tmp_path, mirrored):
    run = tmp_path / "run"
    train(run, [Jsonl()])
    pushed(run)
    time.sleep(1.0)
    pushed(run)
    first, second = mirrored(run)
    assert first == second
    assert first["run"]["run_id"] == (run / "wandb-id.txt").read_text().strip()


def test_where_it_goes_can_be_said(tmp_path, mirrored):
    train(tmp_path / "run", [Jsonl()])
    pushed(tmp_path / "run", "--project", "mine", "--group", "ours")
    (found,) = mirrored(tmp_path / "run")
    assert (found["run"]["project"], found["run"]["run_group"]) == ("mine", "ours")


def test_a_run_that_was_killed_has_no_status(tmp_path, mirrored):
    train(tmp_path / "run", [Jsonl()], status="", last=3)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tor')
    pushed(tmp_path / "run")
    (found,) = mirrored(tmp_path / "run")
    assert len(found["history"]) == 3
    assert found["exit"] == 1
    assert "status" not in found["summary"]
    assert found["summary"]["eval/loss"] == "0.75"


def test_a_folder_stands_for_the_runs_below(tmp_path):
    for name in ("a", "b"):
        train(tmp_path / name, [Jsonl()])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert push.runs(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert push.runs(tmp_path / "a") == [tmp_path / "a"]
    assert push.runs(tmp_path / "nowhere") == [tmp_path / "nowhere"]
    with store.lock(tmp_path / "a"):
        run = go(tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith(f"left out: {tmp_path / 'a'} is in use by process ")
    assert run.stdout.startswith(f"{tmp_path / 'b'}: 4 reports")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist; give the directory of a run"):
        push.push(tmp_path / "nowhere", mode="offline")
    with pytest.raises(UsageError, match=r"has no config.json; give the directory of a run"):
        push.push(tmp_path, mode="offline")
    record.write(tmp_path, FACTS, None)
    with pytest.raises(UsageError, match=r"has no numbers in metrics.jsonl"):
        push.push(tmp_path, mode="offline")
    assert not (tmp_path / "wandb-id.txt").exists()


def test_nobody_is_told_to_log_in_before_anything_is_read(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="got no login for W&B; run `wandb login` first, or push with --mode offline"):
        push.check("online")
    push.check("offline")
