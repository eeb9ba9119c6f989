"""`craft plan`: a table of 80 columns, one object, and the errors of every other command."""

import json

import pytest

from craft import config


def test_a_table(craft, small):
    code, out, err = craft("plan", "char_1m", *small)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for word in ("parameters", "flops per token", "tokens per step", "activations", "peak", "step", "start", "run"):
        assert f"\n  {word} " in out
    assert "char_1m on cpu, fp32, 1 threads" in out
    assert "compile none: as asked" in out
    assert "memory auto: keeps all activations" in out


def test_one_object(craft, small):
    code, out, _ = craft("plan", "char_1m", *small, "--json", "--memory", "small")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["memory_mb"] == pytest.approx(sum(found["memory_parts_mb"].values()), rel=1e-6)
    assert (found["rematerialise"], found["bits"], found["accumulate"], found["steps"]) == (True, 8, 1, 4)
    assert found["parameters"] > found["parameters_without_embeddings"] > 0
    assert found["seconds_per_step"] > 0
    assert found["tokens_per_step"] == 64


def test_what_a_size_picks_stands_in_the_configuration(craft, small, tmp_path):
    out = tmp_path / "run"
    assert craft("train", "char_1m", *small, "--memory", "small", "--out", out).code == 0
    stored = config.load(out / "config.json")
    assert stored["experiment"]["values"]["optimizer"]["bits"] == 8
    assert stored["run"]["memory"] == "small"
    assert "memory small: activations are computed again, moments have 8 bits" in (out / "log.txt").read_text(encoding="utf-8")
    assert craft("train", "char_1m", "--resume", out).code == 0


def test_a_run_that_fits_says_so(craft, small, tmp_path):
    out = tmp_path / "run"
    assert craft("train", "char_1m", *small, "--memory", "8GB", "--out", out).code == 0
    assert "memory 8GB: all activations are kept: " in (out / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ((), "got no experiment to plan; name one: craft plan char_1m"),
        (("char_2m",), "char_1m"),
        (("char_1m", "--memory", "lots"), "got memory='lots'; expected auto, fast, small, or a size such as 4GB"),
        (("char_1m", "--device", "cuda:99"), "got device 'cuda:99'"),
    ],
)
def test_what_cannot_be_planned(craft, argv, shown):
    code, out, err = craft("plan", *argv)
    assert (code, out) == (2, "")
    assert shown in err


@pytest.mark.parametrize("command", ["plan", "train"])
def test_what_does_not_fit(craft, small, command, tmp_path):
    out = ["--out", tmp_path / "run"]
    code, out, err = craft(command, "char_1m", *small, "--memory", "30MB", *out)
    assert (code, out) == (2, "")
    assert "got --memory 30MB, but the smallest setting is predicted to take" in err
    assert not (tmp_path / "run").exists()


def test_help_knows_it(craft):
    assert "plan EXPERIMENT" in craft("--help").out
    assert "--memory" in craft("train", "char_1m", "--help").out
    assert "usage: craft plan EXPERIMENT" in craft("plan", "--help").out
