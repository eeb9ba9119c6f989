"""What is counted right is what a loop over the questions, one text after another, finds right."""

from __future__ import annotations

import json
import math
from itertools import islice

import attrs
import pytest
import torch

from craft import data, evaluate, generate
from craft.errors import UsageError
from craft.evaluate.answers import rate
from craft.evaluate.greedy import Prompt, fitting
from craft.evaluate.questions import MARGIN, Exact
from craft.types import Context

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "far", "away", "from", "it"]


def write(tmp_path, items):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def log_likelihood(task, params, before, scored):
    ids, start = task.tokenizer.encode(before + scored).tolist(), len(before)
    first = max(0, len(ids) - 1 - task.context)
    total = 0.0
    for place in range(start, len(ids)):
        logits = task.model.apply(params, torch.tensor([ids[first:place]]), Context())[0][0, -1]
        total += float(logits.double().log_softmax(-1)[ids[place]])
    return total


def choices():
    for n in range(20):
        context = " ".join(WORDS[n % 5 : n % 5 + 1 + n % 4]) + " "
        texts = [WORDS[n % 12], " ".join(WORDS[n % 5 :][:3]), WORDS[(7 * n + 2) % 12]]
        yield {"context": context, "choices": texts, "answer": n % 3 if n % 4 else 1}


def test_choices_equal_the_naive_reference(make_task, engine, tmp_path):
    task, params = make_task()
    items, plain, by_bytes, cut = list(choices()), 0, 0, 0
    for item in items:
        logs = [log_likelihood(task, params, item["context"], choice) for choice in item["choices"]]
        shares = [log / len(choice) for log, choice in zip(logs, item["choices"], strict=True)]
        plain += logs.index(max(logs)) == item["answer"]
        by_bytes += shares.index(max(shares)) == item["answer"]
        cut += any(len(item["context"] + choice) - 1 > task.context for choice in item["choices"])
    said: list[str] = []
    questions = evaluate.read_questions(write(tmp_path, items), task.tokenizer)
    found = evaluate.answer_questions(task, params, engine, questions, said.append)
    assert (found["questions"], found["choices"], found["skipped"], found["truncated"]) == (20, 20, 0, cut)
    assert (found["acc"], found["acc_bytes"]) == (plain / 20, by_bytes / 20)
    assert plain != by_bytes
    assert cut > 0
    assert found["acc_stderr"] == pytest.approx(math.sqrt(found["acc"] * (1 - found["acc"]) / 19))
    assert found["chance"] == pytest.approx(1 / 3)
    assert said[-1] == "60 of 60 choices scored"
    assert "exact_match" not in found


def greedy_text(task, params, prompt, tokens):
    ids = task.tokenizer.encode(prompt)
    sampling = generate.Sampling(temperature=0.0)
    kept = fitting(Prompt(ids, tokens), task.context)
    drawn = generate.decode(
        task.model, params, kept[None], vocabulary=task.tokenizer.size, context=task.context, sampling=sampling
    )
    with torch.no_grad():
        return task.tokenizer.decode([int(row) for row in islice(drawn, tokens)])


def test_exact_answers_equal_the_naive_reference(make_task, engine, tmp_path):
    task, params = make_task()
    items, right = [], 0
    for n, word in enumerate(WORDS):
        prompt = " ".join(WORDS[: 1 + n % 5])
        text = greedy_text(task, params, prompt, 6 + MARGIN)
        answer = text.split("\n")[0].strip()
        answer = answer if n % 2 and answer else word
        items.append({"prompt": prompt, "answer": answer})
        written = greedy_text(task, params, prompt, len(answer) + MARGIN)
        right += written.split("\n")[0].strip() == answer
    questions = evaluate.read_questions(write(tmp_path, items), task.tokenizer)
    found = evaluate.answer_questions(task, params, engine, questions)
    assert (found["prompts"], found["exact_match"]) == (len(items), pytest.approx(right / len(items)))
    prompts = [item.prompt for item in questions.items if isinstance(item, Exact)]
    assert found["truncated"] == sum(len(fitting(prompt, task.context)) < len(prompt.ids_N) for prompt in prompts)
    assert found["truncated"] > 0
    assert "acc" not in found


def lined(task, order):
    """Let a model write these ids, whatever the prompt, and the last of them for ever."""

    def logits(count):
        next_ids = torch.tensor([order[min(int(n), len(order) - 1)] for n in count])
        return torch.nn.functional.one_hot(next_ids, task.tokenizer.size).float()[:, None]

    def memory(batch, capacity, dtype, device="cpu"):
        return torch.full((batch,), -1)

    def advance(params, ids_BT, count_B, ctx):
        return logits(count_B + 1), count_B + 1

    return attrs.evolve(task, model=task.model._replace(memory=memory, advance=advance))


def test_an_answer_ends_with_its_line_and_space_does_not_count(make_task, engine, tmp_path):
    task, params = make_task()
    items = [{"prompt": "x", "answer": " ab "}, {"prompt": "xy", "answer": "a"}, {"prompt": "y", "answer": "ab c"}]
    questions = evaluate.read_questions(write(tmp_path, items), task.tokenizer)
    found = evaluate.answer_questions(lined(task, task.tokenizer.encode("ab\nc").tolist()), params, engine, questions)
    assert found["exact_match"] == pytest.approx(1 / 3)


def test_what_a_token_holds_beyond_the_line_is_no_answer(make_task, engine, tmp_path):
    class Pieces(data.ByteTokenizer):
        def decode(self, ids):
            return "".join(["?", "a", "b\nno"][int(i)] for i in ids)

    task, params = make_task(tokenizer=Pieces())
    questions = evaluate.read_questions(write(tmp_path, [{"prompt": "x", "answer": "ab"}]), task.tokenizer)
    assert evaluate.answer_questions(lined(task, (1, 2, 0)), params, engine, questions)["exact_match"] == 1.0


def test_a_file_of_both_kinds_has_both_measures(make_task, engine, tmp_path):
    task, params = make_task()
    choice = {"context": "the ", "choices": ["cat", "mat"], "answer": 0}
    items = [choice, {"prompt": "the cat sat on a mat", "answer": "q"}, "bad"]
    questions = evaluate.read_questions(write(tmp_path, items), task.tokenizer, skip_bad=True)
    found = evaluate.answer_questions(task, params, engine, questions)
    assert (found["questions"], found["choices"], found["prompts"], found["skipped"]) == (2, 1, 1, 1)
    assert (found["acc_stderr"], found["exact_match_stderr"]) == (None, None)
    assert found["truncated"] == 1


def test_the_standard_error_is_that_of_a_mean():
    hits = [True, True, False, True]
    values = torch.tensor(hits).double()
    assert rate("acc", hits) == {"acc": 0.75, "acc_stderr": pytest.approx(float(values.std() / 2))}
    assert rate("acc", [True])["acc_stderr"] is None


def test_answers_need_a_tokenizer(make_task, engine, tmp_path):
    task, params = make_task()
    questions = evaluate.read_questions(write(tmp_path, [{"prompt": "the", "answer": "cat"}]), task.tokenizer)
    with pytest.raises(UsageError, match="has no tokenizer"):
        evaluate.answer_questions(attrs.evolve(task, tokenizer=None), params, engine, questions)
