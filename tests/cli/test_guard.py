"""Errors as people see them."""

import subprocess
import sys

import pytest

from craft.cli.guard import guarded
from craft.errors import UsageError


def raising(error):
    def run(argv):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UsageError("got x;\n  expected y"), 2, "error: got x; expected y\n"),
        (ValueError("not this"), 1, "error: not this\n"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, "error: [Errno 2] No such file: 'a.txt'\n"),
        (KeyError("lost"), 1, "error: KeyError: 'lost' (--debug shows where)\n"),
        (RuntimeError(""), 1, "error: RuntimeError: RuntimeError (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_a_sentence_and_a_code(capsys, error, code, shown):
    with pytest.raises(SystemExit) as ended:
        guarded(raising(error), [])
    assert ended.value.code == code
    assert capsys.readouterr().err == shown


def test_debug_lets_the_traceback_through():
    with pytest.raises(KeyError, match="lost"):
        guarded(raising(KeyError("lost")), ["--debug"])


@pytest.mark.parametrize("code", [0, 1, 143])
def test_the_code_of_a_command_is_the_exit_code(code):
    with pytest.raises(SystemExit) as ended:
        guarded(lambda argv: code, [])
    assert ended.value.code == code


_CLOSED = """
import sys
from craft.cli.guard import guarded
def many(argv):
    for _ in range(100000):
        sys.stdout.write("a line of output\\n")
    return 0
guarded(many, [])
"""


def test_a_reader_that_went_away_is_no_error(root):
    command = [sys.executable, "-c", _CLOSED]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        assert ended.stderr is not None
        ended.stdout.readline()
        ended.stdout.close()
        assert ended.stderr.read() == b""
    assert ended.returncode == 0
