"""Turns: contestants that stay alive are asked one after another, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tools.bench.cases import Case
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun, Worker
from tools.bench.session import Session

__all__ = ["begin", "estimate", "free", "turns"]


def begin(
    session: Session, those: Iterable[Contestant], case: Case, not_run: dict[str, str], **more: Any
) -> dict[str, tuple[Worker, dict[str, Any]]]:
    """Start contestants one after another, each with its first update and a burst to warm up.

    Parameters
    ----------
    session, case
        What is run.
    those
        Who.
    not_run
        Is told who could not start, and why.
    **more
        Fields of `setup.Setup`.

    Returns
    -------
    By name, the worker and what it said of itself, with the `loss` of its first update.
    """
    begun: dict[str, tuple[Worker, dict[str, Any]]] = {}
    for one in those:
        session.say(f"{case.name}: starting {one.name}")
        worker = session.worker(one, case, first="steps 1", **more)
        try:
            facts = worker.hear()
            facts["loss"] = worker.hear()["loss"]
            worker.ask("steps 1" if one.peer == "product" else f"steps {case.burst}")
            begun[one.name] = (worker, facts)
        except NotRun as reason:
            not_run[one.name] = str(reason)
            session.say(f"{case.name}: {one.name} is not run: {reason}")
            worker.end()
    return begun


def turns(
    workers: dict[str, Worker], rounds: int, bursts: dict[str, int], keep: Callable[[str, int, dict[str, Any]], None]
) -> dict[str, str]:
    """Ask everybody for a burst in each round; return who fell out, and why.

    Parameters
    ----------
    workers
        By name; the order turns by one each round, so that nobody always comes after the same one.
    rounds
        How many.
    bursts
        Updates of one turn, by name.
    keep
        Called with the name, the round and the answer.
    """
    lost: dict[str, str] = {}
    names = list(workers)
    for number in range(rounds):
        place = number % len(names)
        for name in names[place:] + names[:place]:
            if name in lost:
                continue
            try:
                keep(name, number, workers[name].ask(f"steps {bursts[name]}"))
            except NotRun as reason:
                lost[name] = str(reason)
    return lost


def estimate(case: Case) -> float:
    """Guess the resident size of a contestant, MB: the libraries, four numbers a parameter, the activations."""
    scores = 8.0 * case.batch * case.heads * case.context**2 * case.depth
    stream = 80.0 * case.tokens * case.width * case.depth
    return 800.0 + (24.0 * case.parameters + scores + stream + 16.0 * case.tokens * case.vocabulary) / 2**20


def free() -> float:
    """Return the memory that may be used now, MB; plenty where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 1e9
