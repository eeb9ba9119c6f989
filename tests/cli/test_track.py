"""The command `craft track`: what it refuses, and a real run pushed."""

import shutil
import subprocess
import sys

import pytest

from craft.track.artifact import newest


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("argv", [(), ("--help",)])
def test_help_names_the_commands(craft, argv):
    code, out, _ = craft("track", *argv)
    assert code == 0
    assert "  push RUN" in out
    assert "  dashboard" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["push", "dashboard"])
def test_each_command_has_its_help(craft, command):
    code, out, _ = craft("track", command, "--help")
    assert code == 0
    assert f"usage: craft track {command}" in out
    assert "--project" in out


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("pull",), "got the command track 'pull'; expected push or dashboard"),
        (("push",), "got no run to push; name one or more"),
        (("push", "nowhere", "--mode", "offline"), "got nowhere as a run, but it does not exist"),
        (("push", "nowhere"), "got no login for W&B; run `wandb login` first"),
        (("push", "nowhere", "--mode", "of"), "invalid choice"),
    ],
)
def test_misuse_is_one_sentence_and_exits_with_2(craft, nobody, argv, shown):
    code, _, err = craft("track", *argv)
    assert code == 2
    assert shown in err


def test_a_dashboard_without_its_package(craft, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = craft("track", "dashboard", "--print")
    assert (code, "pip install 'craft[dashboard]'" in err) == (2, True)


def test_a_run_is_pushed_with_its_checkpoint(finished, tmp_path, root):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    command = [sys.executable, "-m", "craft", "track", "push", str(run), "--mode", "offline", "--artifacts"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second = ended.stdout.splitlines()
    assert first == f"{run}: 4 reports, 1 sample"
    assert second.startswith("offline; send it later with `wandb sync ")
    (log,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert all(word in log.read_bytes() for word in (b"eval/loss", b"checkpoint-", b"params.safetensors"))


def test_what_is_uploaded_is_a_run_that_can_write(craft, finished, tmp_path):
    found = newest(finished)
    assert found is not None
    for name, path in found.files.items():
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "got" / name)
    code, out, _ = craft("generate", tmp_path / "got", "--prompt", "the cat", "--tokens", "5", "--device", "cpu")
    assert (code, out[:7]) == (0, "the cat")
