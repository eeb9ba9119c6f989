"""The command `craft`: what it can do, and who does it. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from craft import __version__
from craft.cli import find
from craft.cli.guard import guarded
from craft.errors import UsageError

__all__ = ["entry"]

_HELP = f"""\
usage: craft COMMAND [OPTIONS]

Craft {__version__}: functional training of AI models, with and for small machines.

commands
  train EXPERIMENT      train an experiment; its flags: craft train NAME --help
  sweep EXPERIMENT      many trials of one, in packs: --grid lr=0.01,0.02 --seeds 4
  plan EXPERIMENT       what its training would take: memory, time; the same flags
  data prepare SOURCE   text to token shards, once; data info DIR shows them
  tokenizer train TEXT  learn a subword vocabulary; tokenizer show FILE cuts a text
  generate RUN          let a run's model write:  craft generate RUN --prompt "def "
  evaluate RUN          measure a run's model on held-out data
  compare RUN RUN ...   runs side by side: a table, --html FILE, --figures DIR
  report RUN            the page of one run: curves, samples, configuration
  replay RUN            a step made again to the bit; --set tries a change on it
  track push RUN        send recorded runs to W&B; track dashboard: a view of them
  list                  the experiments that can be trained

  craft COMMAND --help  what a command takes
  --version             the version
  --debug               after any command: the whole traceback of an error
"""


def entry() -> None:
    """Run the command that `sys.argv` names and exit."""
    guarded(_dispatch, sys.argv[1:])


def _dispatch(argv: Sequence[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("--help", "-h", "help"):
        sys.stdout.write(_HELP)
        return 0
    if command == "--version":
        sys.stdout.write(f"craft {__version__}\n")
        return 0
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "train": _train,
        "plan": _plan,
        "sweep": _sweep,
        "data": _data,
        "tokenizer": _tokenizer,
        "generate": _generate,
        "evaluate": _evaluate,
        "compare": _compare,
        "report": _report,
        "replay": _replay,
        "track": _track,
        "list": _list,
    }
    if command not in commands:
        from craft import config

        close = config.nearest(command, commands)
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(commands)}"
        raise UsageError(f"got the command {command!r}; {hint}")
    return commands[command](rest)


def _train(argv: Sequence[str]) -> int:
    from craft.cli.experiment import execute

    return _with_experiment("train", argv, execute)


def _plan(argv: Sequence[str]) -> int:
    from craft.cli.plan import plan

    return _with_experiment("plan", argv, plan)


def _sweep(argv: Sequence[str]) -> int:
    from craft.cli.sweep import sweep

    return sweep(argv)


def _with_experiment(command: str, argv: Sequence[str], run: Callable[..., int]) -> int:
    """Find the experiment that is named first and hand it the rest."""
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("--help", "-h"):
            sys.stdout.write(f"usage: craft {command} EXPERIMENT [OPTIONS]\n\nEXPERIMENT is a name or the path of a file:\n")
            return _list(())
        raise UsageError(f"got no experiment to {command}; name one: craft {command} char_1m (craft list shows them)")
    module = find.find(argv[0])
    cls = find.experiment_class(module)
    return run(cls, argv[1:], getattr(module, "PRESETS", {}), f"craft {command} {argv[0]}")


def _data(argv: Sequence[str]) -> int:
    from craft.cli.data import data_command

    return data_command(argv)


def _tokenizer(argv: Sequence[str]) -> int:
    from craft.cli.data import tokenizer_command

    return tokenizer_command(argv)


def _generate(argv: Sequence[str]) -> int:
    from craft.cli.commands import generate_text

    return generate_text(argv)


def _evaluate(argv: Sequence[str]) -> int:
    from craft.cli.commands import evaluate_run

    return evaluate_run(argv)


def _compare(argv: Sequence[str]) -> int:
    from craft.cli.compare import compare_runs

    return compare_runs(argv)


def _report(argv: Sequence[str]) -> int:
    from craft.cli.compare import report_run

    return report_run(argv)


def _replay(argv: Sequence[str]) -> int:
    from craft.cli.replay import replay_run

    return replay_run(argv)


def _track(argv: Sequence[str]) -> int:
    from craft.cli.track import track

    return track(argv)


def _list(argv: Sequence[str]) -> int:
    for name, path in sorted(find.known().items()):
        sys.stdout.write(f"  {name:<16}{find.summary(path)}\n")
    return 0
