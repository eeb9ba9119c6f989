"""A model of text behind the interface of EleutherAI's lm-evaluation-harness (Gao et al. 2024, doi:10.5281/zenodo.12608602).

The harness asks three things of a model: the log-likelihood of a text after another, that of a whole document, and greedy
writing. Its tasks, prompts and metrics are its own. The library is the extra `eval` and is imported when it is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from craft import config
from craft.engine import Engine
from craft.errors import UsageError
from craft.evaluate.greedy import Prompt, continued, fitting
from craft.evaluate.likelihood import Likelihood, Pair, encode_pair, likelihoods, opening
from craft.step import Task
from craft.types import Tensor, Tree

__all__ = ["adapter", "harness", "require_harness"]

_TOKENS = 256
"""Tokens that are written where a task does not say how many, as in the harness's own models."""


def require_harness() -> None:
    """Refuse to go on without the library.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError("tasks of the harness need lm_eval, which is not installed; pip install 'craft[eval]'")


def harness(
    task: Task,
    params: Tree,
    engine: Engine,
    names: Sequence[str],
    folder: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run tasks of the harness.

    Parameters
    ----------
    task
        A task with a model of text and its tokenizer.
    params
        The parameters, on the engine's device.
    engine
        Where it is computed.
    names
        Tasks, groups or tags of the harness.
    folder
        Where further tasks are described, in YAML files; none: only those that come with the harness.
    progress
        Told what is being done.

    Returns
    -------
    JSON: `tasks`, the numbers that the harness has measured, by task and then by metric (`acc,none`, `acc_stderr,none`), and
    `truncated`, how many contexts and prompts were too long for the model, so that only their end was read.

    Raises
    ------
    UsageError
        If the library is missing, a task is not known, or a text of one has characters that the model does not know.
    """
    require_harness()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise UsageError(f"got {folder} for the tasks of the harness, which is no directory; give one with their YAML files")
    own = {} if folder is None else {"include_path": str(folder)}
    manager = TaskManager(**own, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):  # those that come with the library take seconds to list
        manager = TaskManager(**own)
    _check(names, manager.all_tasks)
    model = adapter(task, params, engine, progress)
    results = simple_evaluate(model=model, tasks=list(names), task_manager=manager, log_samples=False)["results"]
    numbers = {name: {key: value for key, value in values.items() if _is_number(value)} for name, values in results.items()}
    return {"tasks": numbers, "truncated": model.answers.truncated}


def _check(names: Sequence[str], known: Sequence[str]) -> None:
    if not names:
        raise UsageError("got no task of the harness; name at least one")
    for name in names:
        if name not in known:
            close = config.nearest(name, known)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else "lm_eval ls tasks shows them, --harness-tasks DIR adds more"
            )
            raise UsageError(f"got {name!r}, which is no task of the harness; {hint}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def adapter(task: Task, params: Tree, engine: Engine, progress: Callable[[str], None] | None = None) -> Any:
    """Make the `lm_eval.api.model.LM` that a task's model is.

    What comes before a document, and stands for an empty context, is `likelihood.opening`.

    Raises
    ------
    UsageError
        If the library is missing, or the task has no model of text.
    """
    require_harness()
    from lm_eval.api.model import LM

    class Adapter(LM):  # type: ignore[misc]
        """What the harness asks, in its own words."""

        answers = _Answers(task, params, engine, progress or (lambda text: None))

        def loglikelihood(self, requests: Sequence[Any], **unused: Any) -> list[tuple[float, bool]]:
            """Return the log-likelihood of each continuation after its context, nats, and whether greedy writing gives it."""
            return self.answers.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], **unused: Any) -> list[float]:
            """Return the log-likelihood of each document, nats."""
            return self.answers.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], **unused: Any) -> list[str]:
            """Return what is written after each context, up to the first text that ends it."""
            return self.answers.generate_until([request.args for request in requests])

    return Adapter()


class _Answers:
    """The same without the harness: texts in, numbers and texts out."""

    def __init__(self, task: Task, params: Tree, engine: Engine, tell: Callable[[str], None]) -> None:
        if task.tokenizer is None:
            raise UsageError("this task has no tokenizer; the harness speaks in text and needs one")
        self.task, self.params, self.engine, self.tell, self.tokenizer = task, params, engine, tell, task.tokenizer
        self.truncated = 0

    def loglikelihood(self, texts: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        pairs = [self._fitting(encode_pair, self.tokenizer, before, after) for before, after in texts]
        return [(one.log, one.greedy) for one in self._likelihoods(pairs)]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        first_N = opening(self.tokenizer)[-1:]
        pairs = [Pair(first_N, self._fitting(self.tokenizer.encode, text)) for text in texts]
        return [one.log for one in self._likelihoods(pairs)]

    def generate_until(self, texts: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        ends = [_ends(settings) for _, settings in texts]
        prompts = [Prompt(self._prompt(text), int(settings.get("max_gen_toks", _TOKENS))) for text, settings in texts]
        self.truncated += sum(len(fitting(prompt, self.task.context)) < len(prompt.ids_N) for prompt in prompts)
        written = continued(
            self.task,
            self.params,
            self.engine,
            prompts,
            lambda row, ids: any(end in self.tokenizer.decode(ids) for end in ends[row]),
            lambda done: self.tell(f"{done} of {len(prompts)} texts written"),
        )
        return [_before(self.tokenizer.decode(ids), stops) for ids, stops in zip(written, ends, strict=True)]

    def _likelihoods(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        def tell(done: int) -> None:
            self.tell(f"{done} of {len(pairs)} texts scored")

        found = likelihoods(self.task, self.params, self.engine, pairs, tell)
        self.truncated += sum(one.cut for one in found)
        return found

    def _prompt(self, text: str) -> Tensor:
        ids_N: Tensor = self._fitting(self.tokenizer.encode, text)
        return ids_N if len(ids_N) else opening(self.tokenizer)

    def _fitting(self, encode: Callable[..., Any], *texts: Any) -> Any:
        try:
            return encode(*texts)
        except ValueError as error:
            raise UsageError(f"a text of the harness does not fit the model: {error}") from error


def _ends(settings: dict[str, Any]) -> list[str]:
    """Return the texts that end what is written; refuse what is not greedy."""
    if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
        raise UsageError("got a task of the harness that samples; only greedy writing is offered: set do_sample to false in it")
    until = settings.get("until") or []
    return [end for end in ([until] if isinstance(until, str) else until) if end]


def _before(text: str, ends: Sequence[str]) -> str:
    places = [text.find(end) for end in ends if end in text]
    return text[: min(places)] if places else text
