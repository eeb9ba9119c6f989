"""Questions on disk: what a line means, and what is said of one that means nothing."""

from __future__ import annotations

import json

import pytest

from craft import data
from craft.evaluate.questions import MARGIN, Choice, Exact, QuestionError, read_questions

GOOD = {"context": "the cat ", "choices": ["sat", "ran far"], "answer": 1}


@pytest.fixture
def file(tmp_path):
    """Write lines into a file of questions."""

    def write(*lines, name="questions.jsonl"):
        path = tmp_path / name
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))
        return path

    return write


@pytest.fixture
def tokenizer(make_task):
    return make_task()[0].tokenizer


def test_both_kinds(file, tokenizer):
    path = file(GOOD, "", {"prompt": "two and two ", "answer": " four \n", "id": 7}, {**GOOD, "question": "a", "context": "b"})
    with pytest.raises(QuestionError, match="line 4: got both of context and question"):
        read_questions(path, tokenizer)
    choice, exact = read_questions(path, tokenizer, skip_bad=True).items
    assert isinstance(choice, Choice)
    assert (choice.answer, choice.sizes) == (1, (3, 7))
    assert [(tokenizer.decode(pair.before_N), tokenizer.decode(pair.scored_N)) for pair in choice.pairs] == [
        ("the cat ", "sat"),
        ("the cat ", "ran far"),
    ]
    assert isinstance(exact, Exact)
    assert (tokenizer.decode(exact.prompt.ids_N), exact.prompt.tokens, exact.answer) == ("two and two ", 4 + MARGIN, "four")


def test_question_is_another_name_of_context_and_sizes_are_bytes(file):
    tokenizer = data.ByteTokenizer()
    [named] = read_questions(file({"question": "né", "choices": ["é", "e"], "answer": 0}), tokenizer).items
    assert isinstance(named, Choice)
    assert named.sizes == (2, 1)
    assert tokenizer.decode(named.pairs[0].before_N) == "né"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("{", "got no JSON (Expecting property name enclosed in double quotes at column 2); expected one object a line"),
        ("[1]", "got a list; expected an object"),
        ({"a": 1}, "got the keys 'a'; expected context, choices and answer, or prompt and answer"),
        ({}, "got the keys none; expected"),
        ({"choices": ["a", "b"], "answer": 0}, "got none of context and question"),
        ({**GOOD, "context": 3}, "got context 3; expected a text"),
        ({**GOOD, "choices": ["sat"]}, "got choices ['sat']; expected a list of at least two texts, none empty"),
        ({**GOOD, "choices": ["sat", ""]}, "got choices ['sat', '']"),
        ({**GOOD, "choices": "ab"}, "got choices 'ab'"),
        ({**GOOD, "answer": 2}, "got answer 2; expected the number of a choice, 0 to 1"),
        ({**GOOD, "answer": -1}, "got answer -1"),
        ({**GOOD, "answer": True}, "got answer True"),
        ({**GOOD, "answer": "sat"}, "got answer 'sat'"),
        ({"context": "a", "choices": ["a", "b"]}, "got answer None"),
        ({"prompt": "a", "answer": 4}, "got answer 4; expected a text"),
        ({"prompt": "", "answer": "a"}, "expected a prompt and an answer of one line"),
        ({"prompt": "a", "answer": " "}, "expected a prompt and an answer of one line"),
        ({"prompt": "a", "answer": "a\nb"}, "expected a prompt and an answer of one line"),
        ({**GOOD, "context": "QUIT"}, "got characters that the vocabulary lacks: 'I' (1)"),
        ({"prompt": "a", "answer": "4"}, "got characters that the vocabulary lacks: '4' (1)"),
        ('{"prompt": "a\\ud800", "answer": "b"}', "lone surrogate U+D800"),
    ],
)
def test_a_bad_line_is_named_or_left_out(file, tokenizer, line, shown):
    path = file(GOOD, line, GOOD)
    with pytest.raises(QuestionError) as raised:
        read_questions(path, tokenizer)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert shown in str(raised.value)
    assert "(--skip-bad leaves such lines out)" in str(raised.value)
    questions = read_questions(path, tokenizer, skip_bad=True)
    assert len(questions.items) == 2
    [fault] = questions.skipped
    assert shown in fault
    assert "skip-bad" not in fault


def test_files_without_a_question(file, tokenizer, tmp_path):
    with pytest.raises(QuestionError, match=r"without a question; expected one JSON object a line$"):
        read_questions(file("", " "), tokenizer)
    with pytest.raises(QuestionError, match=r"the first of 2 bad lines is .*line 1: got no JSON"):
        read_questions(file("{", "}"), tokenizer, skip_bad=True)
    with pytest.raises(QuestionError, match=r"cannot read .*nowhere\.jsonl: No such file or directory; give a file"):
        read_questions(tmp_path / "nowhere.jsonl", tokenizer)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(QuestionError, match="is not UTF-8"):
        read_questions(tmp_path / "latin.jsonl", tokenizer)


def test_line_ends_and_the_mark_of_other_systems(tmp_path, tokenizer):
    path = tmp_path / "dos.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode() + b"\r\n")
    assert len(read_questions(path, tokenizer).items) == 2
