"""One contestant in a process of its own: `python -m tools.bench.worker SETUP`, where SETUP is a line of JSON."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from typing import Any, TextIO

from tools.bench.beat import Beat, Finished, memory
from tools.bench.setup import Setup

__all__ = ["missing", "serve"]


def missing(error: ModuleNotFoundError) -> str:
    """Say which package is not there and how to get it."""
    library = (error.name or str(error)).partition(".")[0]
    return f"{library} is not installed (pip install -e '.[bench]')"


def serve(setup: Setup, commands: TextIO, answers: TextIO) -> None:
    """Do a worker's job until the parent has had enough; what goes wrong is the last answer.

    Parameters
    ----------
    setup
        The contestant, its case and its job.
    commands, answers
        The two ends of the conversation; see `beat`.
    """
    beat = Beat(commands, answers)
    try:
        peer = importlib.import_module(f"tools.bench.peers.{setup.contestant.peer}")
        if not hasattr(peer, setup.job):
            beat.say({"missing": f"{setup.contestant.peer} has no way to {setup.job}"})
        elif setup.job == "train":
            peer.train(setup, beat)
        elif setup.job == "generate":
            write, facts = peer.generate(setup)
            _generate(write, facts, beat, commands)
        else:
            beat.say(peer.quality(setup))
    except Finished:
        pass
    except ModuleNotFoundError as error:
        beat.say({"missing": missing(error)})
    except Exception as error:  # noqa: BLE001 - the parent names it as not run and goes on with the others
        traceback.print_exc()
        beat.say({"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"})


def _generate(write: Any, facts: dict[str, Any], beat: Beat, commands: TextIO) -> None:
    beat.say(facts)
    for line in commands:
        word, _, number = line.strip().partition(" ")
        if word == "generate":
            began = time.perf_counter()
            tokens = write(int(number))
            beat.say({"seconds": time.perf_counter() - began, "tokens": tokens})
        elif word == "memory":
            beat.say(memory())
        else:
            return


def _main() -> None:
    setup = Setup.load(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # not every library has a setting for its threads
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, available[: setup.threads])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print must not get between the answers
    serve(setup, sys.stdin, answers)
    answers.flush()
    os._exit(0)  # a library's threads must not keep a finished worker


if __name__ == "__main__":
    _main()
