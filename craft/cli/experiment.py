"""An experiment as a program: its fields and those of `run.Run` are the flags."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import attrs

from craft.cli.find import name_of
from craft.cli.guard import guarded
from craft.cli.renew import renew
from craft.config import ConfigError
from craft.errors import UsageError
from craft.run import Run

if TYPE_CHECKING:
    from craft.record import Record
    from craft.step import Task, Tokenizer
    from craft.train import OutOfMemoryError, Result

__all__ = ["execute", "main", "parse"]


def main(cls: type[Any], presets: Mapping[str, Any] | None = None) -> None:
    """Run an experiment from the command line: `if __name__ == "__main__": cli.main(MyExperiment)`.

    Parameters
    ----------
    cls
        attrs class with `build(tokenizer=None) -> Task`.
    presets
        Values to start from, chosen by `--preset NAME`.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    prog = f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
    guarded(lambda argv: execute(cls, argv, presets or {}, prog), sys.argv[1:])


def execute(cls: type[Any], argv: Sequence[str], presets: Mapping[str, Any], prog: str) -> int:
    """Parse the flags, build the task and train it; return the exit code."""
    experiment, run = parse(cls, argv, presets, prog)
    from craft.train import OutOfMemoryError

    while True:
        try:
            result, task = _train(cls, experiment, run, prog)
            break
        except OutOfMemoryError as error:
            if run.oom != "halve":
                raise
            experiment, run = _halved(run, error)
        gc.collect()  # here the error, and with it the state that it held, is gone
    renew(result.directory)
    _say_next(result, task, prog)
    return 128 + result.signal if result.signal else 0


def _train(cls: type[Any], experiment: Any, run: Run, prog: str) -> tuple[Result, Task]:
    from craft.cli.fit import fit
    from craft.train import train

    name = name_of(cls)
    stored = _stored(cls, run.resume, run.out, run.fork)
    fitted = fit(experiment, run, fixed=stored is not None)
    tokenizer, params = _begin(run, stored, prog)
    task = fitted.experiment.build(tokenizer) if tokenizer else fitted.experiment.build()
    return train(task, run, name=name, memory=fitted.choice, params=params), task


def _halved(run: Run, error: OutOfMemoryError) -> tuple[Any, Run]:
    """Return the experiment with its batch in more parts, and the run that goes on from the last checkpoint."""
    from craft.cli.fit import finer

    parts = next(finer(error.experiment), None)
    if parts is None:
        raise error
    sys.stderr.write(f"{error}\ngoing on with --accumulate {parts}\n")
    there = (error.directory / "config.json").is_file()
    again = attrs.evolve(run, out=None, fork=None, resume=str(error.directory)) if there else run
    return attrs.evolve(error.experiment, accumulate=parts), again


def _begin(run: Run, stored: Record | None, prog: str) -> tuple[Tokenizer | None, Any]:
    """Return the tokenizer and the parameters that a run does not make itself: those it has, or those of `--init`."""
    from craft import data

    if stored is not None:
        return data.load_tokenizer(stored.tokenizer) if stored.tokenizer else None, None
    if run.init is None:
        return None, None
    from craft.cli.stored import load

    own = prog.split()[-1] if prog.endswith(".py") else ""
    former = load(run.init, experiment=own, device="cpu", precision="fp32")
    return former.task.tokenizer, former.task.params(former.state)


def parse(cls: type[Any], argv: Sequence[str], presets: Mapping[str, Any], prog: str) -> tuple[Any, Run]:
    """Turn flags into an experiment and a run.

    A stored configuration (`--config`, or that of a run that is resumed) or a preset comes first; flags win over it.

    Raises
    ------
    UsageError
        If a value is out of range or a file is not a configuration.
    """
    import tyro

    try:
        experiment, run = _start_from(cls, argv, presets)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    about = (cls.__doc__ or "").strip().split("\n\n")[0]
    module_doc = sys.modules[cls.__module__].__doc__ or about
    if "--help" in argv or "-h" in argv:
        from craft.cli.short import show

        show((experiment, run, _Start()), module_doc.strip(), prog)

    unnamed = tyro.conf.arg(name="")
    kinds = {"experiment": Annotated[cls, unnamed], "run": Annotated[Run, unnamed], "start": Annotated[_Start, unnamed]}
    command = attrs.make_class(
        "Command", {name: attrs.field(type=cast(Any, kind)) for name, kind in kinds.items()}, frozen=True
    )
    args = ["--help" if word == "--help-all" else word for word in argv]
    try:
        chosen = tyro.cli(
            command,
            args=args,
            prog=prog,
            description=module_doc.strip(),
            default=command(experiment, run, _Start()),
            config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
        )
    except ValueError as error:  # a validator's own sentence
        raise UsageError(str(error)) from error
    return chosen.experiment, chosen.run


@attrs.frozen
class _Start:
    """Where the values come from that no flag gives."""

    config: Path | None = None
    """Start from the config.json of an earlier run (or JSON, TOML of an experiment's fields); flags win."""
    preset: str = ""
    """Start from a preset of the experiment, by its name."""


def _start_from(cls: type[Any], argv: Sequence[str], presets: Mapping[str, Any]) -> tuple[Any, Run]:
    from craft import config

    preset, file, resume, out, fork = (_peek(argv, name) for name in ("--preset", "--config", "--resume", "--out", "--fork"))
    if preset and preset not in presets:
        raise UsageError(f"got --preset {preset}; this experiment has {', '.join(sorted(presets)) or 'none'}")
    if preset and file:
        raise UsageError("got --preset and --config; give one place to start from")
    base, run = presets[preset] if preset else cls(), Run()
    stored = _stored(cls, resume, Path(out) if out else None, Path(fork) if fork else None)
    if stored is not None:
        run = config.from_dict(Run, stored.data.get("run", {}))  # when it reports is part of the bytes it writes
        if not preset and not file:
            return config.from_dict(cls, stored.experiment["values"]), run
    if not file:
        return base, run
    data = config.load(Path(file))
    if "experiment" not in data:
        return config.from_dict(cls, data), Run()
    return config.from_dict(cls, data["experiment"]["values"]), config.from_dict(Run, data.get("run", {}))


def _stored(cls: type[Any], resume: str, out: Path | None, fork: Path | None) -> Record | None:
    """Return the run that is to be gone on with, if it is there."""
    from craft import record

    if fork is not None and not resume:
        return record.read(fork.parent.parent if fork.parent.name == record.CHECKPOINTS else fork)
    if not resume:
        return None
    directory = Path(resume) if resume != "auto" else out or record.newest(name_of(cls))
    return record.read(directory) if directory is not None and (directory / "config.json").is_file() else None


def _peek(argv: Sequence[str], flag: str) -> str:
    for word, after in itertools.pairwise([*argv, ""]):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""


def _say_next(result: Result, task: Task, prog: str) -> None:
    where = result.directory
    own = f" --experiment {prog.split()[-1]}" if prog.endswith(".py") else ""
    if result.status == "stopped":
        sys.stdout.write(f"\nStopped. Go on with\n  {prog} --resume {where}\n")
        return
    lines = [f"\nThe run lies in {where}; open its report.html in a browser. Next:"]
    if task.tokenizer is not None:
        lines.append(f'  craft generate {where} --prompt "{_prompt(task.tokenizer)}" --tokens 200{own}')
    if task.evaluation is not None:
        lines.append(f"  craft evaluate {where}{own}")
    sys.stdout.write("\n".join(lines) + "\n")


def _prompt(tokenizer: Tokenizer) -> str:
    """Choose a prompt that the model knows."""
    try:
        tokenizer.encode("def ")
    except ValueError:
        letters = (tokenizer.decode([token]) for token in range(1, tokenizer.size))
        return next((letter for letter in letters if letter.isalnum()), "...")
    return "def "
