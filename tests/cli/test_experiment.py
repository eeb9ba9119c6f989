"""An experiment as a program: flags to values, a run to an exit code, and what was mistyped to a sentence."""

import json
import os
import signal
import sys

import attrs
import pytest

from craft import cli, hooks
from craft.cli.experiment import execute, parse
from experiments.char_1m import PRESETS, Char1M


def parsed(*argv, presets=PRESETS):
    return parse(Char1M, [str(word) for word in argv], presets, "test")


def config_of(directory):
    return json.loads((directory / "config.json").read_text(encoding="utf-8"))


# -- values


def test_without_flags_everything_is_the_default():
    experiment, run = parsed()
    assert experiment == Char1M()
    assert (run.out, run.resume, run.compile) == (None, "", "auto")


def test_flags_are_fields_by_their_path(tmp_path):
    experiment, run = parsed("--lr", "3e-4", "--model.pattern.0.heads", "2", "--optimizer.decay", "0", "--out", tmp_path / "x")
    assert experiment.lr == 3e-4
    assert experiment.model.pattern[0].heads == 2
    assert experiment.optimizer.decay == 0.0
    assert run.out == tmp_path / "x"
    assert parsed("--checkpoint.every=7")[1].checkpoint.every == 7


def test_presets_choose_and_flags_tune():
    assert parsed("--preset", "smoke")[0] == PRESETS["smoke"]
    assert parsed("--preset=smoke", "--lr", "0.5")[0] == attrs.evolve(PRESETS["smoke"], lr=0.5)


def test_a_configuration_file_comes_first_and_flags_win(finished, tmp_path):
    experiment, run = parsed("--config", finished / "config.json", "--lr", "0.5")
    stored = config_of(finished)
    assert (experiment.lr, experiment.steps, experiment.model.width) == (0.5, 4, 16)
    assert experiment.data.source == stored["experiment"]["values"]["data"]["source"]
    assert (run.compile, run.sample.tokens, run.out) == ("none", 8, None)
    (tmp_path / "mine.toml").write_text('lr = 0.25\n[model]\ndepth = 2\n[data]\ntokenizer = "byte"\n', encoding="utf-8")
    experiment, _ = parsed("--config", tmp_path / "mine.toml", "--model.depth", "3")
    assert (experiment.lr, experiment.model.depth, experiment.data.tokenizer) == (0.25, 3, "byte")


def test_a_resumed_run_starts_from_what_it_was(finished, text):
    experiment, run = parsed("--resume", finished)
    assert (experiment.steps, experiment.model.width) == (4, 16)
    assert run.sample.tokens == 8  # how it reports is part of the bytes it writes
    assert parsed("--resume", finished, "--lr", "0.5")[0].lr == 0.5
    assert parsed("--resume", "auto", "--out", finished)[0].steps == 4


# -- what was mistyped


def test_an_unknown_flag_names_the_nearest(craft, small):
    code, _, err = craft("train", "char_1m", *small, "--stpes", "3")
    assert code == 2
    assert "Unrecognized options: --stpes" in err
    assert "--steps INT" in err


@pytest.mark.parametrize(
    ("flag", "value", "shown"),
    [
        ("--steps", "three", "--steps"),
        ("--lr", "fast", "--lr"),
        ("--compile", "all", "invalid choice 'all'"),
        ("--batch", "-1", "got batch=-1; expected 1 or more"),
        ("--steps", "0", "got steps=0; expected 1 or more"),
        ("--lr", "nan", "got lr=nan; expected a finite number above 0"),
        ("--model.dropout", "1.0", "got dropout=1.0; expected a number from 0 to below 1"),
        ("--threads", "-2", "got threads=-2"),
        ("--device", "cuda:99", "got device 'cuda:99'; this machine has cpu"),
        ("--preset", "smok", "got --preset smok; this experiment has "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(craft, small, tmp_path, flag, value, shown):
    code, _, err = craft("train", "char_1m", *small, flag, value, "--out", tmp_path / "run")
    assert code == 2
    assert shown in err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ('{"lr": 0.1, "stpes": 3}', "stpes: unknown key; Char1M has lr, steps"),
        ('{"lr": 0.1, "stpes": 3}', "(did you mean steps?)"),
        ('{"steps": "3"}', "steps: got '3'; expected a whole number"),
        ('{"steps": -3, "batch": 0}', "steps: got steps=-3; expected 1 or more batch: got batch=0"),
        ('{"lr": }', "line 1 column 8"),
        ("[]", "expected an object at the top"),
    ],
)
def test_a_configuration_file_that_is_wrong(craft, small, tmp_path, content, shown):
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="utf-8")
    code, _, err = craft("train", "char_1m", "--config", path)
    assert code == 2
    assert shown in err


def test_one_place_to_start_from(craft, finished):
    code, _, err = craft("train", "char_1m", "--preset", "smoke", "--config", finished / "config.json")
    assert (code, "give one place to start from" in err) == (2, True)
    code, _, err = craft("train", "char_1m", "--config", finished / "none.json")
    assert (code, "it cannot be read (No such file or directory)" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", "found no text in"),
        (b"  \n \n", "found only whitespace (5 characters)"),
        (b"some text\nand \0 binary" * 50, "has a NUL byte at offset 14 (line 2): it is binary"),
        (b"some text\nand \xff bytes" * 50, "is not UTF-8: byte 0xff at offset 14 (line 2)"),
        (b"a short text\n" * 3, "the largest context that fits is 1"),
    ],
)
def test_data_that_cannot_be_read_or_is_too_short(craft, small, text, tmp_path, content, shown):
    text.write_bytes(content)
    code, _, err = craft("train", "char_1m", *small, "--out", tmp_path / "run")
    assert code in (1, 2)
    assert shown in err
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_context_longer_than_the_data_says_what_fits(craft, small):
    code, _, err = craft("train", "char_1m", *small, "--context", "200")
    assert code in (1, 2)
    assert "the largest context that fits is 131" in err


def test_data_that_is_not_there_names_the_nearest(craft, small, text):
    code, _, err = craft("train", "char_1m", *small, "--data.source", text.with_name("texd.txt"))
    assert code in (1, 2)
    assert f"did you mean {text}?" in err


def test_a_taken_directory(craft, small, finished):
    before = config_of(finished)
    code, _, err = craft("train", "char_1m", *small, "--out", finished)
    assert code == 2
    assert "which is taken; choose another directory, or go on with it by --resume auto" in err
    assert config_of(finished) == before


# -- a run


def test_a_run_says_what_to_do_next(craft, small, tmp_path):
    code, out, err = craft("train", "char_1m", *small, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "finished after 4 updates" in out
    assert f"  craft evaluate {tmp_path / 'run'}" in out
    assert f"  craft generate {tmp_path / 'run'} --prompt" in out
    values = config_of(tmp_path / "run")["experiment"]["values"]
    assert (values["steps"], values["model"]["width"], values["lr"]) == (4, 16, 0.02)
    code, out, _ = craft("train", "char_1m", "--resume", tmp_path / "run")
    assert (code, "complete: all 4 steps are done" in out) == (0, True)


def test_a_run_that_was_stopped_says_how_to_go_on(small, tmp_path, capsys):
    def stop(task, state, report):
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    @attrs.frozen
    class Stopping(Char1M):
        """One that is stopped by its own hook."""

        def build(self, tokenizer=None):
            return attrs.evolve(super().build(tokenizer), hooks=(hooks.every(1, stop),))

    argv = [*small, "--out", str(tmp_path / "run")]
    assert execute(Stopping, argv, {}, "test") == 128 + signal.SIGTERM
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert execute(Stopping, [*argv, "--resume", "auto"], {}, "test") == 0


def test_resuming_with_another_value_lists_it(craft, finished):
    code, _, err = craft("train", "char_1m", "--resume", finished, "--lr", "0.5", "--steps", "9")
    assert code == 2
    assert "lr: 0.02 there, 0.5 here; steps: 4 there, 9 here" in err


def test_main_is_the_same_program(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["char_1m", *small, "--preset", "smoke", "--steps", "1", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        cli.main(Char1M, presets=PRESETS)
    assert not ended.value.code
    assert "finished after 1 update" in capsys.readouterr().out


def test_a_run_is_gone_on_from_on_new_text_with_its_tokenizer(craft, finished, tmp_path, small):
    other = tmp_path / "other.txt"
    other.write_text("the dog sat on a mat; far away ran the cat.\n" * 60, encoding="utf-8")
    flags = [*small, "--data.source", str(other), "--init", str(finished)]
    code, _, err = craft("train", "char_1m", *flags, "--out", tmp_path / "tuned")
    assert (code, err) == (0, "")
    assert (tmp_path / "tuned" / "tokenizer.json").read_bytes() == (finished / "tokenizer.json").read_bytes()
    assert config_of(tmp_path / "tuned")["run"]["init"] == str(finished)
    assert (tmp_path / "tuned" / "report.html").stat().st_size > 10_000
    assert craft("train", "char_1m", *flags, "--resume", tmp_path / "tuned").code == 0
    other.write_text("ÄÖÜ\n" * 60, encoding="utf-8")
    code, _, err = craft("train", "char_1m", *flags, "--out", tmp_path / "strange")
    assert code == 2
    assert "got characters that the vocabulary lacks: 'Ä'" in err


# -- memory


@pytest.fixture
def cramped(monkeypatch):
    """A step of the engine that finds no memory at the third update, until the batch is computed in two parts or more."""
    from craft.engine import Engine

    real = Engine.step

    def step(self, task, state, batch, say=None):
        program = real(self, task, state, batch, say)

        def run(state, batch):
            if int(state.step) == 2 and task.experiment.accumulate == 1:
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory: you tried"
                )
            return program(state, batch)

        return run

    monkeypatch.setattr(Engine, "step", step)


def test_a_step_that_does_not_fit_names_the_batch_and_what_to_do(craft, small, cramped, tmp_path):
    code, _, err = craft("train", "char_1m", *small, "--out", tmp_path / "run", "--checkpoint.every", "1")
    assert code == 1
    assert "step 3 did not fit into memory: a batch of 4 x 16, in 1 part" in err
    assert "--accumulate 2 computes the batch in more parts" in err
    assert "the last checkpoint is step 2" in err


@pytest.mark.parametrize("every", ["1", "100"])
def test_halving_goes_on_with_the_same_samples(craft, small, cramped, tmp_path, monkeypatch, every):
    flags = [*small, "--checkpoint.every", every, "--track.every", "1"]
    code, _, err = craft("train", "char_1m", *flags, "--out", tmp_path / "run", "--oom", "halve")
    assert code == 0
    assert "going on with --accumulate 2" in err
    monkeypatch.undo()
    assert craft("train", "char_1m", *flags, "--out", tmp_path / "whole").code == 0
    texts = ((tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("whole", "run"))
    there, here = ([json.loads(line) for line in text.splitlines()] for text in texts)
    assert [row["step"] for row in here] == [row["step"] for row in there] == [1, 2, 3, 4]
    assert [row["train/loss"] for row in here] == pytest.approx([row["train/loss"] for row in there], abs=1e-6)
    stored = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert stored["experiment"]["values"]["accumulate"] == 2
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert ("perhaps not exact from here on: accumulate was 1, is 2" in log) == (every == "1")
