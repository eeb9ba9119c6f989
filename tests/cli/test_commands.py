"""The commands that use a finished run."""

import io
import json
import re
import shutil
import sys

import pytest

from craft import track


def metrics(directory):
    return track.read(directory / "metrics.jsonl")


# -- generate


def test_a_text_goes_on_from_its_prompt_and_its_seed_repeats_it(craft, finished):
    def text(*more):
        return craft("generate", finished, "--prompt", "the cat", "--tokens", "30", "--device", "cpu", *more)

    code, out, err = text("--seed", "1")
    assert (code, err) == (0, "")
    assert out.startswith("the cat")
    assert len(out) == len("the cat") + 30 + 1
    assert text("--seed", "1").out == out
    assert text("--seed", "2").out != out
    assert text("--temperature", "0", "--seed", "1").out == text("--temperature", "0", "--seed", "2").out


def test_the_text_comes_as_it_is_written(finished, monkeypatch):
    from craft.cli.commands import generate_text

    class Screen(io.StringIO):
        flushed: list[int] = []

        def flush(self):
            self.flushed.append(len(self.getvalue()))

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    assert generate_text([str(finished), "--prompt", "the", "--tokens", "6", "--device", "cpu"]) == 0
    assert len(set(screen.flushed)) >= 5


def test_a_prompt_from_standard_input(craft, finished, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a dog"))
    code, out, _ = craft("generate", finished, "--prompt", "-", "--tokens", "3", "--device", "cpu")
    assert (code, out[:5], len(out)) == (0, "a dog", 9)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("--prompt", "QUIT 7"), "characters that the vocabulary lacks: 'I' (1), 'Q' (1), 'T' (1), 'U' (1)"),
        (("--prompt", ""), "got an empty prompt"),
        (("--tokens", "0"), "got --tokens 0; expected at least 1"),
        (("--temperature", "-1"), "got temperature=-1.0; expected a number from 0"),
        (("--top-p", "1.5"), "got top_p=1.5; expected a number from 0 to 1"),
        (("--device", "cuda:99"), "got device 'cuda:99'"),
        (("--toknes", "3"), "--tokens"),
        (("--experiment", "nothing.py"), "there is no such file"),
    ],
)
def test_what_cannot_be_generated(craft, finished, argv, shown):
    code, out, err = craft("generate", finished, "--device", "cpu", *argv)
    assert (code, out) == (2, "")
    assert shown in err


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_missing_run(craft, tmp_path, command):
    code, _, err = craft(command, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere as a run, but it does not exist; give the directory of a run" in err
    code, _, err = craft(command, tmp_path)
    assert (code, "has no config.json" in err) == (2, True)
    assert craft(command)[0] == 2


def test_a_checkpoint_that_does_not_fit_lists_what_differs(craft, finished, tmp_path):
    place = tmp_path / "wider"
    shutil.copytree(finished, place)
    data = json.loads((place / "config.json").read_text(encoding="utf-8"))
    data["experiment"]["values"]["model"]["width"] = 32
    (place / "config.json").write_text(json.dumps(data), encoding="utf-8")
    code, _, err = craft("generate", place, "--device", "cpu")
    assert code == 1
    assert "does not fit" in err
    assert "has shape [30, 16] where [30, 32] is expected" in err
    assert re.search(r"and \d+ more; build the state from the configuration", err)


# -- evaluate


def test_evaluation_equals_the_end_of_the_run(craft, finished):
    code, out, _ = craft("evaluate", finished, "--json", "--device", "cpu", "--threads", "1")
    found, last = json.loads(out), metrics(finished)[-1]
    assert code == 0
    assert (found["step"], found["split"], found["run"]) == (4, "validation", str(finished))
    assert found["loss"] == last["eval/loss"]
    assert found["bits"] == last["eval/bits"]
    other = json.loads(craft("evaluate", finished, "--json", "--split", "test", "--device", "cpu").out)
    assert other["loss"] != found["loss"]


def test_evaluation_for_people(craft, finished):
    code, out, err = craft("evaluate", finished, "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{finished}, step 4, validation split"
    assert f"  loss        {metrics(finished)[-1]['eval/loss']:.4f}" in out


def test_other_data_is_refused(craft, finished, tmp_path, text):
    place = tmp_path / "moved"
    shutil.copytree(finished, place)
    data = json.loads((place / "config.json").read_text(encoding="utf-8"))
    text.write_text("a cat and a dog\n" * 100, encoding="utf-8")
    data["experiment"]["values"]["data"]["source"] = str(text)
    (place / "config.json").write_text(json.dumps(data), encoding="utf-8")
    code, _, err = craft("evaluate", place, "--device", "cpu")
    assert code == 2
    assert "give it the data it was trained on" in err
    assert craft("evaluate", finished, "--split", "all", "--device", "cpu").code == 2


# -- an experiment of one's own

IDEA = '''"""My idea.

Run: craft train my/idea.py
"""

import attrs

from experiments.char_1m import Char1M


@attrs.frozen
class Idea(Char1M):
    """One run of it."""

    extra: float = 1.0
    """A number of my own."""
'''


def test_an_experiment_at_a_typed_path(craft, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "idea.py").write_text(IDEA, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "idea", raising=False)
    code, out, _ = craft("train", "my/idea.py", *small, "--extra", "2.5")
    assert code == 0
    [run] = (tmp_path / "outputs" / "idea").iterdir()
    values = json.loads((run / "config.json").read_text(encoding="utf-8"))["experiment"]
    assert (values["name"], values["values"]["extra"]) == ("idea", 2.5)
    assert "craft generate outputs/idea/" in out
    code, _, err = craft("generate", run, "--device", "cpu")
    assert code == 2
    assert "not among the experiments; name its file: --experiment PATH.py" in err
    code, out, _ = craft("generate", run, "--experiment", "my/idea.py", "--prompt", "the", "--tokens", "5", "--device", "cpu")
    assert (code, len(out)) == (0, 9)
    assert craft("evaluate", run, "--experiment", "my/idea.py", "--device", "cpu").code == 0
    monkeypatch.delitem(sys.modules, "idea")
