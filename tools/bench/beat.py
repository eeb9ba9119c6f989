"""The worker's side of the line protocol: a training loop calls `beat` after each update, and waits there for its turn.

The parent writes one command a line, the worker answers each with one line of JSON:

==========  ==============================================================================================
steps N     make N updates: {"seconds": all of them, "each": [one an update], "loss": of the last one}
memory      {"peak_mb": largest resident size from there on, "now_mb": present one, "device_mb": peak on the GPU}
quit        end; so does the end of the input, so that no worker outlives its parent
==========  ==============================================================================================

The worker speaks first, {"parameters": N, ...}, when it has built its model.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Beat", "Finished", "forget_peak", "memory"]


class Finished(BaseException):
    """The parent wants no more updates; no peer's `except Exception` may catch it."""


class Beat:
    """Hands updates to the parent in bursts.

    Parameters
    ----------
    commands, answers
        The two ends of the conversation.
    """

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self._commands, self._answers = commands, answers
        self._left, self._marks = 0, [0.0]

    def start(self, **facts: Any) -> None:
        """Say that the model is built, and wait for the first burst; the peak of the memory counts from here on."""
        forget_peak()
        self.say(facts)
        self._wait()

    def say(self, answer: dict[str, Any]) -> None:
        """Write one line to the parent."""
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def __call__(self, loss: Callable[[], float]) -> None:
        """Count one update; at the end of a burst answer, and wait for the next.

        Parameters
        ----------
        loss
            Reads the update's loss, nats; called once a burst, so that a GPU is not stopped after each update.

        Raises
        ------
        Finished
            If the parent says quit, or is gone.
        """
        self._left -= 1
        if self._left:
            self._marks.append(time.perf_counter())
            return
        value = float(loss())  # waits for the device
        self._marks.append(time.perf_counter())
        each = [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]
        self.say({"seconds": self._marks[-1] - self._marks[0], "each": each, "loss": value})
        self._wait()

    def _wait(self) -> None:
        for line in self._commands:
            word, _, number = line.strip().partition(" ")
            if word == "memory":
                self.say(memory())
            elif word == "steps":
                self._left, self._marks = int(number), [time.perf_counter()]
                return
            elif word == "quit":
                break
            else:
                self.say({"error": f"got the command {line.strip()!r}; expected steps N, memory or quit"})
        raise Finished


def forget_peak() -> None:
    """Let the largest resident size be what is in use now, where Linux can: reading the shared weights is nobody's training."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory() -> dict[str, float]:
    """Return the largest (since `forget_peak`) and the present resident size, and the peak on the GPU, in MB (2**20 bytes)."""
    sizes = {"VmHWM": 0.0, "VmRSS": 0.0}
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0]) / 1024
    torch = sys.modules.get("torch")
    device = torch.cuda.max_memory_allocated() / 2**20 if torch is not None and torch.cuda.is_initialized() else 0.0
    return {"peak_mb": sizes["VmHWM"], "now_mb": sizes["VmRSS"], "device_mb": device}
