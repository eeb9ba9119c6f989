"""The mirror to W&B with the real library: offline, against a server that never answers, and after the run was killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from craft import checkpoint
from craft.errors import UsageError
from craft.run import Track
from craft.track import Console, Info, Jsonl, Many, Report, TensorBoard, Wandb
from craft.track import open as open_trackers

HOUSE = str(Path(__file__).parents[2])
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process table of Linux")


@pytest.fixture
def hole():
    """A server that accepts and never answers."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield {"WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}", "WANDB_API_KEY": "0" * 40}
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


def info(directory, **more):
    return Info(name="a-run", directory=directory, config={"lr": 0.125}, steps=30, **more)


def report(step):
    return Report(step, 10 * step, {"train/loss": 1 / step, "odd": float("nan")}, {"seconds": 0.5})


def alive(group):
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(stat.parent.name)
    return found


def pid(sink):
    assert sink._child is not None
    return sink._child.pid


def wait_until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def test_offline_writes_what_wandb_sync_sends(tmp_path, mirrored):
    said: list[str] = []
    sink = Wandb("offline", said.append)
    sink.start(info(tmp_path, project="my-project", group="my-group"))
    for step in range(1, 4):
        sink.report(report(step))
    sink.sample(3, "def ", "x = 1")
    sink.finish("finished", {"eval/loss": 0.5, "odd": float("nan")})
    (found,) = mirrored(tmp_path)
    identity = (tmp_path / "wandb-id.txt").read_text().strip()
    assert found["run"] == {"run_id": identity, "display_name": "a-run", "project": "my-project", "run_group": "my-group"}
    assert found["config"]["lr"] == 0.125
    assert [row["train/loss"] for row in found["history"]] == ["1", "0.5", "0.3333333333333333"]
    names = {"step", "tokens", "train/loss", "odd", "time/seconds"}
    assert found["history"][0].keys() == names
    assert found["history"][2].keys() > names
    assert found["history"][2]["samples/nrows"] == "1"
    assert found["axes"] == {"step": "", "tokens": "", "time/seconds": "", "*": "step"}
    assert (found["summary"]["eval/loss"], found["summary"]["status"], found["exit"]) == ("0.5", "'finished'", 0)
    table = json.loads(next((tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json")).read_text())
    assert table == {"columns": ["step", "prompt", "text"], "data": [[3, '"def "', "x = 1"]]}
    assert said[0].startswith("W&B: offline; send it later with `wandb sync ")
    assert len(said) == 1
    raw = next((tmp_path / "wandb").glob("offline-run-*/*.wandb")).read_bytes()
    for private in (f'"{socket.gethostname()}"', f'"{sys.executable}"', "wandb-metadata", "requirements.txt"):
        assert private.encode() not in raw


def test_a_resumed_run_is_whole_in_each_offline_run(tmp_path, drive, mirrored):
    """`wandb sync` puts one in the place of the other."""
    drive(Many([Jsonl(), Wandb("offline")]), tmp_path / "whole", last=4)
    drive(Many([Jsonl(), Wandb("offline")]), tmp_path / "parts", last=3, status="stopped")
    with (tmp_path / "parts" / "samples.txt").open("a") as file:
        file.write('== step 2, after the prompt "a"\n    b\n')
    time.sleep(1.0)  # wandb names directories by the second
    drive(Many([Jsonl(), Wandb("offline")]), tmp_path / "parts", first=2, last=4)
    (whole,), (first, second) = mirrored(tmp_path / "whole"), mirrored(tmp_path / "parts")
    assert first["run"]["run_id"] == second["run"]["run_id"] != whole["run"]["run_id"]
    assert len(first["history"]) == 3
    without = [{name: row[name] for name in row if not name.startswith("samples/")} for row in second["history"]]
    assert without[:3] == whole["history"][:3]
    assert ["samples/nrows" in row for row in second["history"]] == [False, True, False, True]
    tables = sorted((tmp_path / "parts" / "wandb").glob("offline-run-*/files/media/table/samples_4_*"))
    assert [row[:2] for row in json.loads(tables[-1].read_text())["data"]] == [[2, '"a"'], [4, '"def \\n"']]


# -- checkpoints


@pytest.fixture
def saved(tmp_path):
    """A run's directory with two checkpoints."""
    for step in (9, 10):
        state = {"step": torch.tensor(step), "params": {"w": torch.ones(3)}}
        checkpoint.save(tmp_path / "checkpoints", state, memory={}, extra={})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_the_newest_checkpoint_is_an_artifact_on_request(saved, mirrored):
    said: list[str] = []
    sink = Wandb("offline", said.append, artifacts=True)
    sink.start(info(saved))
    sink.report(report(1))
    sink.finish("stopped", {})
    (found,) = mirrored(saved)
    ((name, kind, aliases, contents),) = found["artifacts"]
    assert (name, kind) == (f"checkpoint-{found['run']['run_id']}", "model")
    assert aliases == ["latest", "step-10"]
    place = "checkpoints/step-00000010"
    files = [f"{place}/MANIFEST.json", f"{place}/params.safetensors", f"{place}/state.safetensors"]
    assert sorted(contents) == [*files, "config.json", "tokenizer.json"]
    assert len(said) == 1


def test_no_checkpoint_to_upload_is_said_and_costs_nothing_else(tmp_path, mirrored):
    said: list[str] = []
    sink = Wandb("offline", said.append, artifacts=True)
    sink.start(info(tmp_path))
    sink.report(report(1))
    sink.finish("finished", {"eval/loss": 0.5})
    assert said[1] == "W&B: there is no checkpoint to upload"
    (found,) = mirrored(tmp_path)
    assert (found["artifacts"], found["summary"]["eval/loss"]) == ([], "0.5")


def test_an_upload_is_waited_for_by_its_size(saved):
    sink = Wandb("offline", artifacts=True)
    sink.start(info(saved))
    with (saved / "checkpoints" / "step-00000010" / "params.safetensors").open("wb") as file:
        file.truncate(50_000_000)
    assert 200.0 <= sink._uploading() < 200.1
    sink.finish("finished", {})


def test_an_upload_to_a_server_that_never_answers_is_given_up(saved, hole, monkeypatch):
    for name, value in hole.items():
        monkeypatch.setenv(name, value)
    with (saved / "checkpoints" / "step-00000010" / "params.safetensors").open("wb") as file:
        file.truncate(50_000_000)
    said: list[str] = []
    sink = Wandb("online", said.append, artifacts=True, wait=3.0)
    sink.start(info(saved))
    before = time.monotonic()
    sink.finish("finished", {})
    assert time.monotonic() - before < 6.0
    assert said[0] == "W&B has not opened the run yet; waiting for it 3 s at most"
    assert said[-1].endswith(f"send it with `craft track push {saved} --artifacts`")


def test_an_upload_without_wandb_is_refused():
    with pytest.raises(UsageError, match=r"got --track.artifacts, but W&B is off \(--track.wandb auto\)"):
        open_trackers(Track(artifacts=True))


# -- what can go wrong


@LINUX
def test_a_server_that_never_answers_costs_nothing(tmp_path, hole, monkeypatch):
    for name, value in hole.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    mirror = Wandb("online", said.append, wait=3.0)
    sink = Many([Jsonl(), mirror])
    began = time.monotonic()
    sink.start(info(tmp_path))
    assert time.monotonic() - began < 0.5
    waits = []
    for step in range(1, 31):
        before = time.monotonic()
        mirror.report(report(step))
        waits.append(time.monotonic() - before)
        sink.trackers[0].report(report(step))
    group = pid(mirror)
    wait_until(lambda: len(alive(group)) == 2, 20)  # ours, and the one that wandb starts
    before = time.monotonic()
    sink.finish("finished", {})
    assert time.monotonic() - before < 5.0
    assert sorted(waits)[-3] < 0.01  # a busy machine may take the processor away once or twice
    assert max(waits) < 0.5
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 30
    assert said == [
        "W&B takes its time; waiting for it 1 s at most",
        f"W&B did not finish within 3 s; the local record is complete: send it with `craft track push {tmp_path}`",
    ]
    assert not alive(group)


@LINUX
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_nothing_outlives_a_killed_run(tmp_path, hole, mode):
    code = (
        "import sys, time; from pathlib import Path; from craft.track import *\n"
        f"sink = Wandb({mode!r}); sink.start(Info(name='r', directory=Path({str(tmp_path)!r}), config={{}}, steps=9))\n"
        "sink.report(Report(1, 1, {'train/loss': 1.0})); print(sink._child.pid, flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **hole, "PYTHONPATH": HOUSE}, stdout=-1, text=True)
    assert run.stdout is not None
    group = int(run.stdout.readline())
    wait_until(lambda: len(alive(group)) == 2, 20)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_until(lambda: not alive(group), 11)
    if mode == "offline":
        assert b"train/loss" in next((tmp_path / "wandb").glob("offline-run-*/*.wandb")).read_bytes()


def test_a_process_that_does_not_read_makes_nothing_wait(tmp_path):
    said: list[str] = []
    sink = Wandb("offline", said.append, wait=0.5, capacity=10)
    sink.start(info(tmp_path))
    os.kill(pid(sink), signal.SIGSTOP)
    before = time.monotonic()
    for step in range(1, 2000):
        sink.report(Report(step, step, {f"metric {index}": 1.0 for index in range(20)}))
    assert time.monotonic() - before < 2.0
    before = time.monotonic()
    sink.finish("finished", {})
    assert time.monotonic() - before < 2.0
    assert "dropped; the local record is complete" in said[0]
    assert len(said) == 2


def test_a_process_that_dies_is_reported_once(tmp_path):
    said: list[str] = []
    sink = Wandb("offline", said.append)
    sink.start(info(tmp_path))
    os.kill(pid(sink), signal.SIGKILL)
    for step in range(1, 20):
        sink.report(report(step))
    sink.finish("finished", {})
    assert len(said) == 1
    assert "W&B ended early" in said[0]


def test_an_error_of_the_library_is_one_line(tmp_path):
    said: list[str] = []
    sink = Wandb("offline", said.append)
    sink.start(info(tmp_path, project="not/allowed"))
    sink.finish("finished", {})
    assert "project" in said[0]
    assert "ended early" in said[1]
    assert len(said) == 2


def test_flags_choose_the_sinks():
    kinds = [type(sink) for sink in open_trackers(Track(wandb="offline", tensorboard=True)).trackers]
    assert kinds == [Jsonl, Console, TensorBoard, Wandb]
    assert [type(sink) for sink in open_trackers(Track(wandb="off"), console=False).trackers] == [Jsonl]


def test_importing_the_room_imports_nothing_heavy():
    heavy = {"wandb", "torch", "rich", "tensorboard"}
    code = f"import sys, craft.track, craft.track.wandb; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": HOUSE}, capture_output=True, text=True)
    assert run.stdout == "[]\n"
