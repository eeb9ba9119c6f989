"""Going on with a stored run: where it is, what must be the same, and what is taken over from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from craft import checkpoint, config, record, tree
from craft.checkpoint import Checkpoint
from craft.engine import Choice
from craft.errors import UsageError
from craft.run import Run
from craft.step import Task
from craft.types import Tree

__all__ = ["check", "fork", "place", "retuned", "same_memory", "same_mode", "split", "stretch", "warm"]


def place(run: Run, name: str) -> tuple[Path, bool]:
    """Find a run's directory, and whether there is something in it to go on with.

    Raises
    ------
    UsageError
        If the directory is taken, or is not that of a run.
    """
    if run.extend and not run.resume:
        raise UsageError("got --extend without --resume; name the run to go on with: --resume DIR")
    if run.resume_exact and not run.resume:
        raise UsageError("got --resume-exact without --resume; name the run to go on with: --resume DIR")
    if run.fork is not None and (run.resume or run.init is not None):
        raise UsageError(f"got --fork with {'--resume' if run.resume else '--init'}; give one thing to start from")
    if not run.resume:
        return record.open_new(run.out, name), False
    if run.resume != "auto":
        directory = Path(run.resume)
        if run.out is not None and run.out != directory:
            raise UsageError(f"got --resume {directory} and --out {run.out}; a resumed run stays where it is: leave --out away")
        record.read(directory)
        return directory, True
    chosen = run.out or record.newest(name)
    if chosen is not None and (chosen / "config.json").is_file():
        return chosen, True
    return record.open_new(run.out, name), False


def check(stored: record.Record, facts: dict[str, Any], extend: bool) -> None:
    """Refuse to go on with a run of another configuration or on other data.

    Parameters
    ----------
    stored
        The run as it was.
    facts
        The run as it is asked for now; see `record.facts`.
    extend
        Whether another number of steps is meant.

    Raises
    ------
    UsageError
        With the fields that differ.
    """
    former, where = stored.data, stored.directory
    changed = config.diff(former["experiment"]["values"], facts["experiment"]["values"])
    changed.pop("steps", None)
    if split(stored, facts):
        changed.pop("accumulate")
    if former["steps"] != facts["steps"] and not extend:
        changed["steps"] = (former["steps"], facts["steps"])
    if former["seed"] != facts["seed"]:
        changed["seed"] = (former["seed"], facts["seed"])
    if changed:
        fields = "; ".join(f"{path}: {was!r} there, {now!r} here" for path, (was, now) in sorted(changed.items()))
        hint = " (--extend goes on to another number of steps)" if "steps" in changed else ""
        raise UsageError(f"{where} is a run of another configuration: {fields}; give the same one{hint}")
    _same_files(where, former["experiment"].get("files"), facts["experiment"].get("files", {}))
    differing = config.diff(former["data"], facts["data"])
    if "fingerprint" in differing:
        fields = "; ".join(f"{path}: {was!r} there, {now!r} here" for path, (was, now) in sorted(differing.items()))
        raise UsageError(
            f"{where} was trained on other data: {fields}; give it the data it was trained on, or go on as a new run: "
            f"--fork {where}"
        )


def split(stored: record.Record | None, facts: dict[str, Any]) -> tuple[int, int] | None:
    """Return in how many parts a batch was computed and is now, where that alone was changed: the samples are the same."""
    if stored is None:
        return None
    was, now = stored.data["experiment"]["values"], facts["experiment"]["values"]
    parts = was.get("accumulate"), now.get("accumulate")
    if was.get("batch") != now.get("batch") or parts[0] == parts[1] or not all(type(one) is int for one in parts):
        return None
    return int(parts[0]), int(parts[1])


def _same_files(where: Path, former: dict[str, str] | None, now: dict[str, str]) -> None:
    """Refuse an experiment whose own code was changed; a run of an older Craft does not say what it was."""
    changed = [name for name in {**(former or {}), **now} if former is not None and former.get(name) != now.get(name)]
    if changed:
        raise UsageError(
            f"the code of {', '.join(sorted(changed))} was changed since {where} began; bring it back, or go on as a new run: "
            f"--fork {where}"
        )


def fork(path: Path, facts: dict[str, Any], warn: Callable[[str], None]) -> tuple[Checkpoint, dict[str, Any], record.Record]:
    """Find the checkpoint that a new run goes on from.

    Parameters
    ----------
    path
        A run, or one of its checkpoints.
    facts
        The new run; see `record.facts`.
    warn
        Told of damaged checkpoints that were passed over.

    Returns
    -------
    The checkpoint; where it comes from and what was changed, for config.json; and the run that it comes from.

    Raises
    ------
    UsageError
        If there is no run, or no checkpoint.
    """
    single = path.parent.name == record.CHECKPOINTS
    run = path.parent.parent if single else path
    former = record.read(run)
    found = checkpoint.open_checkpoint(path) if single else checkpoint.latest(run / record.CHECKPOINTS, warn)
    if found is None:
        raise UsageError(f"got --fork {path}, which has no checkpoint yet; train it first: --resume {run}")
    parts = ("experiment", "data", "steps", "seed", "code")
    changed = config.diff({part: former.data.get(part) for part in parts}, {part: facts.get(part) for part in parts})
    told = {field: [was, now] for field, (was, now) in changed.items()}
    return found, {"run": str(run), "step": found.step, "seal": found.manifest["seal"], "changed": told}, former


def same_mode(run: Run, extra: dict[str, Any]) -> Run:
    """Take from a checkpoint what the flags leave to Craft: a run keeps one mode from start to end."""
    changes = {name: extra[name] for name in ("precision", "compile") if getattr(run, name) == "auto" and name in extra}
    return attrs.evolve(run, **changes)


def same_memory(run: Run, extra: dict[str, Any]) -> Choice | None:
    """Take from a checkpoint whether activations are kept, where the flags leave that to Craft."""
    if run.memory in ("fast", "small") or "rematerialise" not in extra:
        return None
    again = bool(extra["rematerialise"])
    return Choice(again, f"as before: activations are {'computed again' if again else 'kept'}")


def stretch(state: Any, steps: int) -> Any:
    """Set the horizon of a run that is extended; a state without a horizon has no schedule of ours."""
    if not hasattr(state, "horizon"):
        return state
    return state._replace(horizon=state.horizon.new_full(state.horizon.shape, steps))


def retuned(state: Any, fresh: Any) -> Any:
    """Give a state that comes from another run the hyperparameters of this one; they are part of a state."""
    return state._replace(hyper=fresh.hyper) if hasattr(state, "hyper") else state


def warm(task: Task, state: Any, params: Tree) -> Any:
    """Make the state before the first update anew, with parameters that come from another run.

    Parameters
    ----------
    task
        What is trained; its `init` takes parameters as its second argument, as that of `step.starter` does.
    state
        The state that it makes of itself.
    params
        The parameters.

    Raises
    ------
    UsageError
        If the task has other parameters.
    """
    own, given = tree.named(state.params), tree.named(params)
    faults = [
        f"{name} is {_shape(given, name)} there and {_shape(own, name)} here"
        for name in {**own, **given}
        if _shape(own, name) != _shape(given, name)
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UsageError(
            f"the weights do not fit the model: {'; '.join(faults[:5])}{more}; give it the shape of that run's model"
        )
    fresh = tree.map(lambda old, new: new.detach().to(old.device, old.dtype).clone(), state.params, params)
    return task.init(task.seed, fresh)


def _shape(leaves: dict[str, Any], name: str) -> str:
    return str(tuple(leaves[name].shape)) if name in leaves else "absent"
