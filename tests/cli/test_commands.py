"""The commands that use a finished run."""

import importlib.util
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
    assert re.search(rf"^  loss +{metrics(finished)[-1]['eval/loss']:.4f}$", out, re.MULTILINE)


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


# -- evaluate in detail, on questions, and by the harness


@pytest.fixture
def copied(finished, tmp_path):
    """Copy the run: detail writes into it."""
    return shutil.copytree(finished, tmp_path / "run")


def test_detail_for_people_and_for_the_comparison(craft, copied):
    code, out, err = craft("evaluate", copied, "--detail", "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.startswith(craft("evaluate", copied, "--device", "cpu").out)
    assert max(map(len, out.replace(str(copied), "").splitlines())) <= 80
    for shown in ("loss by position in the context", "9 to 16", "loss by how often", "expected calibration error"):
        assert shown in out
    assert out.endswith(f"all of it is in {copied / 'evaluation.json'}, and in report.html beside it\n")
    assert "Where it loses" in (copied / "report.html").read_text(encoding="utf-8")
    stored = json.loads((copied / "evaluation.json").read_text(encoding="utf-8"))
    assert (list(stored), stored["validation"]["step"], stored["validation"]["precision"]) == (["validation"], 4, "fp32")
    assert len(stored["validation"]["detail"]["positions"]) == 16


def test_detail_as_json_beside_what_was_found_before(craft, copied):
    for split in ("validation", "test"):
        code, out, _ = craft("evaluate", copied, "--detail", "--json", "--split", split, "--device", "cpu")
        found = json.loads(out)
        assert (code, found["split"], found["step"]) == (0, split, 4)
        assert found["detail"]["loss"] == pytest.approx(found["loss"], rel=1e-5)
        assert found["detail"]["accuracy"] == pytest.approx(found["accuracy"], rel=1e-5)
    stored = json.loads((copied / "evaluation.json").read_text(encoding="utf-8"))
    assert list(stored) == ["validation", "test"]
    assert stored["test"]["detail"] == found["detail"]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    lines = [
        {"context": "the cat sat on ", "choices": ["mats", "a dog"], "answer": 0},
        {"prompt": "a dog", "answer": "ran"},
        {"prompt": "QUIT", "answer": "ran"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_questions(craft, finished, questions):
    code, _, err = craft("evaluate", finished, "--task", questions, "--device", "cpu")
    assert code == 2
    assert f"{questions}, line 3: got characters that the vocabulary lacks: 'I' (1), 'Q' (1)" in err
    code, out, err = craft("evaluate", finished, "--task", questions, "--skip-bad", "--device", "cpu")
    assert code == 0
    assert err.startswith(f"left out 1 bad line, the first: {questions}, line 3: got characters")
    assert out.splitlines()[0] == f"{finished}, step 4, {questions}"
    assert out.splitlines()[1] == "  1 choices, 1 prompts, 1 truncated, 1 skipped"
    found = json.loads(craft("evaluate", finished, "--task", questions, "--skip-bad", "--json", "--device", "cpu").out)
    assert (found["task"], found["step"], found["questions"], found["skipped"]) == (str(questions), 4, 2, 1)
    assert found["acc"] in (0.0, 1.0)


def test_questions_need_no_data(craft, copied, questions):
    """A run that came from another machine answers; its text is not asked for."""
    values = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    values["experiment"]["values"]["data"]["source"] = str(copied / "nowhere.txt")
    (copied / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert craft("evaluate", copied, "--task", questions, "--skip-bad", "--device", "cpu").code == 0
    assert craft("evaluate", copied, "--device", "cpu").code == 2


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("--detail", "--task", "x.jsonl"), "got --detail and --task; give one of them at a time"),
        (("--skip-bad",), "got --skip-bad without --task"),
        (("--harness-tasks", "."), "got --harness-tasks without --harness"),
        (("--task", "nowhere.jsonl"), "cannot read nowhere.jsonl: No such file or directory"),
    ],
)
def test_what_cannot_be_evaluated(craft, finished, argv, shown):
    code, out, err = craft("evaluate", finished, "--device", "cpu", *argv)
    assert (code, out) == (2, "")
    assert shown in err


def test_the_harness_is_named_where_it_is_missing(craft, finished, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = craft("evaluate", finished, "--harness", "hellaswag")
    assert (code, out) == (2, "")
    assert err == "error: tasks of the harness need lm_eval, which is not installed; pip install 'craft[eval]'"


TINY = """
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
metadata: {version: 1.0}
"""


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_harness_agrees_with_our_own_questions(craft, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    words = ["the cat", "a dog", "mats", "away"]
    lines = [{"context": f"{words[n % 4]} ", "choices": [words[n % 3], words[3 - n % 2]], "answer": n % 2} for n in range(8)]
    path = tmp_path / "choices.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(TINY.replace("QUESTIONS", str(path)), encoding="utf-8")
    ours = json.loads(craft("evaluate", finished, "--task", path, "--json", "--device", "cpu").out)
    argv = ("evaluate", finished, "--harness", "tiny", "--harness-tasks", tmp_path / "tasks", "--device", "cpu")
    code, out, _ = craft(*argv, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["tasks"]["tiny"]["acc,none"] == ours["acc"]
    code, out, _ = craft(*argv)
    assert (code, f"acc,none                 {ours['acc']:.4f}" in out) == (0, True)


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
