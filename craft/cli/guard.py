"""Errors as people see them: one sentence, an exit code, and the traceback only when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from craft.errors import UsageError

__all__ = ["FAILED", "USAGE", "fail", "guarded"]

USAGE, FAILED = 2, 1


def fail(message: str, code: int) -> NoReturn:
    """Print a sentence to standard error and exit."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)


def guarded(function: Callable[[Sequence[str]], int], argv: Sequence[str]) -> NoReturn:
    """Run a command and exit with its code: 2 where what was typed cannot be run, 1 where something failed.

    `--debug` among the arguments lets the traceback through.
    """
    try:
        code = function(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if "--debug" in argv:
            raise
        code = USAGE if isinstance(error, UsageError) else FAILED
        fail(_sentence(error), code)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"
