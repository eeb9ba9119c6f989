"""The command `craft`: what it offers, and that looking costs nothing."""

import subprocess
import sys

import pytest

from craft import __version__

_LIGHT = """
import sys
from craft.cli.entry import _dispatch
for argv in (["--help"], ["--version"], ["list"], ["train", "--help"]):
    assert _dispatch(argv) == 0
heavy = {"torch", "wandb", "numpy", "tyro", "rich"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""


def test_help_and_list_import_nothing_heavy(root):
    ended = subprocess.run([sys.executable, "-c", _LIGHT], cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "heavy: []"


def test_craft_is_a_module_too(root):
    ended = subprocess.run([sys.executable, "-m", "craft", "--help"], cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: craft COMMAND")


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_the_commands(craft, argv):
    code, out, _ = craft(*argv)
    assert code == 0
    assert all(f"  {name} " in out for name in ("train", "generate", "evaluate", "list"))
    assert len(out.splitlines()) <= 25


def test_the_version(craft):
    assert craft("--version") == (0, f"craft {__version__}\n", "")


def test_list_names_each_experiment_with_what_it_is(craft):
    code, out, _ = craft("list")
    assert code == 0
    assert "  char_1m         Character model of about a million parameters" in out
    assert craft("train", "--help").out.endswith(out)


def test_an_unknown_command_names_the_nearest(craft):
    assert craft("trian")[::2] == (2, "error: got the command 'trian'; did you mean train or track?")
    code, _, err = craft("zzz")
    assert code == 2
    assert err.startswith("error: got the command 'zzz'; expected one of train, plan, ")


def test_train_needs_an_experiment(craft):
    for argv in (("train",), ("train", "--steps", "3")):
        code, _, err = craft(*argv)
        assert code == 2
        assert "got no experiment to train; name one: craft train char_1m" in err


def test_an_unknown_experiment_names_the_nearest(craft):
    code, _, err = craft("train", "char_1n")
    assert code == 2
    assert "got 'char_1n' as an experiment; did you mean char_1m" in err
