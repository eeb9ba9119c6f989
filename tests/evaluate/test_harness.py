"""The harness of EleutherAI gets the numbers of the plain model, through its own interface and its own tasks."""

from __future__ import annotations

import importlib.util
import json
from itertools import islice
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from craft import evaluate, generate
from craft.errors import UsageError
from craft.evaluate.harness import _Answers, _before, adapter
from craft.types import Context

installed = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")
quiet = pytest.mark.filterwarnings("ignore")  # what the library and its own libraries warn of is not ours

ITEMS: list[dict[str, Any]] = [
    {"question": "the cat", "choices": ["sat", "ran far"], "answer": 1},
    {"question": "a dog ran", "choices": ["home", "up"], "answer": 0},
    {"question": "we see", "choices": ["it", "a cat on it"], "answer": 0},
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""
WRITING = """
task: tiny_writing
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{written}}"
generation_kwargs: {until: ["e"], max_gen_toks: 9, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
metadata: {version: 1.0}
"""


def log_likelihood(task, params, before, scored):
    ids = task.tokenizer.encode(before + scored).tolist()
    total = 0.0
    for place in range(len(before), len(ids)):
        first = max(0, len(ids) - 1 - task.context)
        logits = task.model.apply(params, torch.tensor([ids[first:place]]), Context())[0][0, -1]
        total += float(logits.double().log_softmax(-1)[ids[place]])
    return total


def written(task, params, prompt, tokens, end):
    ids, sampling = task.tokenizer.encode(prompt), generate.Sampling(temperature=0.0)
    kept = ids[None, -max(1, task.context - tokens + 1, task.context // 2) :]
    drawn = generate.decode(task.model, params, kept, vocabulary=task.tokenizer.size, context=task.context, sampling=sampling)
    with torch.no_grad():
        return task.tokenizer.decode([int(row) for row in islice(drawn, tokens)]).split(end)[0]


def asked(*texts):
    return [SimpleNamespace(args=text) for text in texts]


def test_the_three_questions_equal_the_plain_model(make_task, engine):
    task, params = make_task()
    said: list[str] = []
    answers = _Answers(task, params, engine, said.append)
    texts = [("the cat ", "sat"), ("", "ran"), ("a cat sat on a mat", " and ran")]
    expected = [log_likelihood(task, params, before or "\n", scored) for before, scored in texts]
    assert [log for log, _ in answers.loglikelihood(texts)] == pytest.approx(expected, abs=1e-4)
    short = "the cat sat"
    assert answers.loglikelihood_rolling([short]) == pytest.approx([log_likelihood(task, params, "\n", short)], abs=1e-4)
    prompts = [
        ("the cat", {"until": ["e", "qq"], "max_gen_toks": 9}),
        ("a cat sat on a mat", {"until": "e", "max_gen_toks": 9}),
    ]
    assert answers.generate_until(prompts) == [written(task, params, prompt, 9, "e") for prompt, _ in prompts]
    assert "3 of 3 texts scored" in said
    assert said[-1].startswith("2 of 2 texts")
    assert answers.truncated == 3


def test_a_document_is_scored_once_a_token_in_windows_that_end_full(make_task, engine):
    task, params = make_task()
    text = "the cat sat on a mat and ran far away"
    ids, context = task.tokenizer.encode("\n" + text), task.context
    expected, place = 0.0, 1
    while place < len(ids):
        end = min(place + context, len(ids))
        window = ids[max(0, end - 1 - context) : end]
        logs = task.model.apply(params, window[None, :-1], Context())[0][0].log_softmax(-1)
        expected += float(logs.gather(1, window[1:, None])[-(end - place) :].sum())
        place = end
    answers = _Answers(task, params, engine, lambda text: None)
    assert answers.loglikelihood_rolling([text]) == pytest.approx([expected], abs=1e-3)


def test_an_empty_prompt_and_none_that_ends(make_task, engine):
    task, params = make_task()
    answers = _Answers(task, params, engine, lambda text: None)
    [text] = answers.generate_until([("", {"max_gen_toks": 5})])
    assert text == written(task, params, "\n", 5, "\0")
    assert len(text) == 5
    assert len(answers.generate_until([("a", {"until": [""]})])[0]) == 256


def test_the_first_of_several_ends_counts():
    assert _before("one\n\ntwo", ["two", "\n\n", "three"]) == "one"
    assert _before("one", ["two"]) == "one"


def test_what_cannot_be_answered(make_task, engine):
    task, params = make_task()
    answers = _Answers(task, params, engine, lambda text: None)
    with pytest.raises(UsageError, match=r"a text of the harness does not fit the model: got characters .* 'Q' \(1\)"):
        answers.loglikelihood([("Q", "a")])
    with pytest.raises(UsageError, match="only greedy writing is offered"):
        answers.generate_until([("a", {"do_sample": True, "temperature": 0.7})])
    assert len(answers.generate_until([("a", {"do_sample": True, "temperature": 0.0, "max_gen_toks": 2})])[0]) == 2
    with pytest.raises(UsageError, match="has no tokenizer"):
        _Answers(attrs.evolve(task, tokenizer=None), params, engine, lambda text: None)


def test_a_missing_library_is_named(make_task, engine, monkeypatch):
    task, params = make_task()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for ask in (
        evaluate.require_harness,
        lambda: evaluate.harness(task, params, engine, ["x"]),
        lambda: adapter(task, params, engine),
    ):
        with pytest.raises(UsageError, match=r"need lm_eval, which is not installed; pip install 'craft\[eval\]'"):
            ask()


@installed
@quiet
def test_the_adapter_is_a_model_of_the_harness(make_task, engine):
    from lm_eval.api.model import LM

    task, params = make_task()
    model = adapter(task, params, engine)
    assert isinstance(model, LM)
    [(log, greedy)] = model.loglikelihood(asked(("the cat ", "sat")))
    assert log == pytest.approx(log_likelihood(task, params, "the cat ", "sat"), abs=1e-4)
    assert isinstance(greedy, bool)
    assert model.loglikelihood_rolling(asked(("the cat",))) == pytest.approx(
        [log_likelihood(task, params, "\n", "the cat")], abs=1e-4
    )
    settings = {"until": ["e"], "max_gen_toks": 4}
    assert model.generate_until(asked(("the cat", settings))) == [written(task, params, "the cat", 4, "e")]


@installed
@quiet
def test_tasks_of_ones_own_run_without_a_network(make_task, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    task, params = make_task()
    texts = [written(task, params, item["question"], 9, "e") for item in ITEMS]
    rows = [{**item, "written": text if n else "wrong"} for n, (item, text) in enumerate(zip(ITEMS, texts, strict=True))]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("choice", CHOICE), ("writing", WRITING), ("rolling", ROLLING)):
        (folder / f"{name}.yaml").write_text(text.replace("QUESTIONS", str(questions)), encoding="utf-8")
    found = evaluate.harness(task, params, engine, ["tiny_choice", "tiny_writing", "tiny_rolling"], folder)
    assert found["truncated"] > 0
    found = found["tasks"]

    plain, by_size, bits, size = 0, 0, 0.0, 0
    for item in ITEMS:
        logs = [log_likelihood(task, params, item["question"], f" {choice}") for choice in item["choices"]]
        shares = [log / len(choice) for log, choice in zip(logs, item["choices"], strict=True)]
        plain += logs.index(max(logs)) == item["answer"]
        by_size += shares.index(max(shares)) == item["answer"]
        bits -= log_likelihood(task, params, "\n", item["question"]) / 0.6931471805599453
        size += len(item["question"])
    assert found["tiny_choice"]["acc,none"] == pytest.approx(plain / 3)
    assert found["tiny_choice"]["acc_norm,none"] == pytest.approx(by_size / 3)
    assert found["tiny_choice"]["acc_stderr,none"] >= 0
    assert found["tiny_writing"]["exact_match,none"] == pytest.approx(2 / 3)
    assert found["tiny_rolling"]["bits_per_byte,none"] == pytest.approx(bits / size, rel=1e-4)
    assert all(isinstance(value, int | float) for metrics in found.values() for value in metrics.values())


@installed
@quiet
def test_tasks_that_are_not_there(make_task, engine, tmp_path):
    task, params = make_task()
    with pytest.raises(UsageError, match=r"got 'helaswag', which is no task of the harness; did you mean hellaswag"):
        evaluate.harness(task, params, engine, ["helaswag"])
    with pytest.raises(UsageError, match="got '%%%', which is no task of the harness; lm_eval ls tasks shows them"):
        evaluate.harness(task, params, engine, ["%%%"], tmp_path)
    with pytest.raises(UsageError, match="which is no directory; give one with their YAML files"):
        evaluate.harness(task, params, engine, ["no_such_task"], tmp_path / "nowhere")
    with pytest.raises(UsageError, match="got no task of the harness; name at least one"):
        evaluate.harness(task, params, engine, [], tmp_path)
