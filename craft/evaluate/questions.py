"""Questions on disk: JSONL, one object a line, each a choice among texts or a prompt with its answer.

    {"context": "The capital of France is", "choices": [" Paris", " Rome"], "answer": 0}
    {"prompt": "2 + 2 =", "answer": "4"}

A context and a choice are joined as they stand, so that the space between them belongs to one of the two. `question` is
another name of `context`; further keys are left alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from craft.data.errors import DataError
from craft.evaluate.greedy import Prompt
from craft.evaluate.likelihood import Pair, encode_pair
from craft.step import Tokenizer

__all__ = ["MARGIN", "Choice", "Exact", "QuestionError", "Questions", "read_questions"]

MARGIN = 8
"""Tokens that may be written beyond the length of the right answer."""


class QuestionError(DataError):
    """A line of a file of questions is not a question, or not one for this model."""


@attrs.frozen
class Choice:
    """A choice among texts."""

    pairs: tuple[Pair, ...]
    """Each choice after the context, in tokens."""
    sizes: tuple[int, ...]
    """Bytes of each choice, in UTF-8."""
    answer: int
    """Which one is right, from 0."""


@attrs.frozen
class Exact:
    """A prompt and the answer that is to be written."""

    prompt: Prompt
    """The prompt in tokens, and how many are written at most."""
    answer: str
    """What is right, without space around it."""


@attrs.frozen
class Questions:
    """What a file of questions holds."""

    items: tuple[Choice | Exact, ...]
    """The questions, in their order."""
    skipped: tuple[str, ...] = ()
    """What is wrong with each line that was left out."""


def read_questions(path: Path, tokenizer: Tokenizer, *, skip_bad: bool = False) -> Questions:
    """Read a file of questions and turn its texts into tokens; empty lines are no questions.

    Parameters
    ----------
    path
        The file, UTF-8.
    tokenizer
        That of the model.
    skip_bad
        Whether a line that cannot be used is left out; else it is an error.

    Raises
    ------
    QuestionError
        If the file cannot be read, holds no question, or, unless bad lines are skipped, has a line that is not one or that has
        a character the model does not know. The line is named.
    """
    items: list[Choice | Exact] = []
    skipped: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            items.append(_question(line, tokenizer))
        except ValueError as error:
            fault = f"{path}, line {number}: {error}"
            if not skip_bad:
                raise QuestionError(f"{fault} (--skip-bad leaves such lines out)") from error
            skipped.append(fault)
    if not items:
        why = f"; the first of {len(skipped)} bad lines is {skipped[0]}" if skipped else ""
        raise QuestionError(f"got {path} without a question; expected one JSON object a line{why}")
    return Questions(tuple(items), tuple(skipped))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}; give a file of one JSON object a line") from error
    except UnicodeDecodeError as error:
        raise QuestionError(f"{path} is not UTF-8 (byte {error.start}); save the questions as UTF-8") from error


def _question(line: str, tokenizer: Tokenizer) -> Choice | Exact:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise QuestionError(f"got no JSON ({error.msg} at column {error.colno}); expected one object a line") from error
    if not isinstance(value, dict):
        raise QuestionError(f"got a {type(value).__name__}; expected an object")
    if "choices" in value:
        return _choice(value, tokenizer)
    if "prompt" in value:
        return _exact(value, tokenizer)
    found = ", ".join(map(repr, value)) or "none"
    raise QuestionError(f"got the keys {found:.80}; expected context, choices and answer, or prompt and answer")


def _choice(value: dict[str, Any], tokenizer: Tokenizer) -> Choice:
    if ("context" in value) == ("question" in value):
        got = "both" if "context" in value else "none"
        raise QuestionError(f"got {got} of context and question; expected one of them beside choices")
    context = _text(value, "context" if "context" in value else "question")
    choices, answer = value["choices"], value.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(text, str) and text for text in choices):
        raise QuestionError(f"got choices {choices!r:.60}; expected a list of at least two texts, none empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise QuestionError(f"got answer {answer!r:.40}; expected the number of a choice, 0 to {len(choices) - 1}")
    pairs = tuple(encode_pair(tokenizer, context, text) for text in choices)
    return Choice(pairs, tuple(len(text.encode()) for text in choices), answer)


def _exact(value: dict[str, Any], tokenizer: Tokenizer) -> Exact:
    prompt, answer = _text(value, "prompt"), _text(value, "answer").strip()
    if not prompt or not answer or "\n" in answer:
        raise QuestionError(f"got prompt {prompt!r:.40} and answer {answer!r:.40}; expected a prompt and an answer of one line")
    return Exact(Prompt(tokenizer.encode(prompt), len(tokenizer.encode(answer)) + MARGIN), answer)


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise QuestionError(f"got {key} {text!r:.40}; expected a text")
    return text
