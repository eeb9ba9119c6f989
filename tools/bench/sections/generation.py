"""Generation: greedy, one text at a time, with a key-value cache, Craft beside Hugging Face's `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.bench.cases import CASES, Case
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun, Worker
from tools.bench.session import Session

__all__ = ["run"]

_PROMPT, _TOKENS = 16, 200


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Measure 1M and 100M."""
    for name in ("1m",) if session.quick else ("1m", "100m"):
        if name not in done:
            yield name, _measure(session, CASES[name])


def _writers(session: Session) -> list[Contestant]:
    ways = [(mode, kind, way) for mode in ("none", "step") for kind in ("fp32", "bf16") for way in ("gpt2", "default")]
    those = [Contestant("craft", mode, kind, architecture=way) for mode, kind, way in ways]
    those += [Contestant("hugging", "generate", kind, kept) for kind in ("fp32", "bf16") for kept in (False, True)]
    return [one for one in those if session.takes(one.peer)]


def _measure(session: Session, case: Case) -> dict[str, Any]:
    workers: dict[str, Worker] = {}
    rates: dict[str, list[float]] = {}
    texts: dict[str, list[int]] = {}
    not_run: dict[str, str] = {}
    same: dict[str, bool] = {}
    for one in _writers(session):
        session.say(f"generation {case.name}: starting {one.name}")
        workers[one.name] = session.worker(one, case, job="generate", options={"prompt": _PROMPT})
        rates[one.name] = []
    for number in range(1 + session.rounds):
        for name in [name for name in workers if name not in not_run]:
            try:
                if number == 0:
                    same[name] = not workers[name].hear()["stand_in"]
                answer = workers[name].ask(f"generate {_TOKENS}")
            except NotRun as reason:
                not_run[name] = str(reason)
                continue
            texts[name] = answer["tokens"]
            rates[name] += [_TOKENS / answer["seconds"]] if number else []  # the first turn warms up
    for worker in workers.values():
        worker.end()
    ours = texts.get("craft none fp32") if same.get("craft none fp32") else None
    agreed = _agreed(ours, texts.get("hugging generate fp32"))
    return {"tokens": _TOKENS, "rates": {name: each for name, each in rates.items() if each}, "not_run": not_run} | agreed


def _agreed(ours: list[int] | None, theirs: list[int] | None) -> dict[str, int]:
    """Count how many tokens from the first on are the same in fp32."""
    if ours is None or theirs is None:
        return {}
    pairs = zip(ours, theirs, strict=True)
    return {"agreed": next((place for place, (a, b) in enumerate(pairs) if a != b), len(ours))}
