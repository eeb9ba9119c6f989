"""A run's directory: everything that is needed to go on with the run, to judge it and to use its model."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from craft import config, store
from craft.errors import UsageError

if TYPE_CHECKING:
    from craft.run import Run
    from craft.step import Task

__all__ = [
    "CHECKPOINTS",
    "FORMAT",
    "Record",
    "code_fingerprint",
    "experiment_files",
    "facts",
    "newest",
    "open_new",
    "origin",
    "read",
    "samples",
    "versions",
    "write",
    "write_halted",
]

FORMAT = 1
CHECKPOINTS = "checkpoints"
_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_LIBRARIES = ("torch", "optree", "attrs", "cattrs", "tyro", "safetensors", "tokenizers", "wandb")


class Record:
    """What config.json and tokenizer.json of a run say."""

    def __init__(self, directory: Path, data: dict[str, Any]) -> None:
        self.directory, self.data = directory, data

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment: its `module`, its `name` and all its `values`."""
        return dict(self.data["experiment"])

    @property
    def tokenizer(self) -> dict[str, Any] | None:
        """What `data.load_tokenizer` takes; None if the run has no tokenizer."""
        path = self.directory / _TOKENIZER
        return config.load(path, limit=config.LARGE) if path.is_file() else None


def read(directory: Path) -> Record:
    """Read a run's directory.

    Raises
    ------
    UsageError
        If it is not the directory of a run, or one of a newer Craft.
    """
    directory = Path(directory)
    path = directory / _CONFIG
    if not path.is_file():
        what = "has no config.json" if directory.is_dir() else "is a file" if directory.exists() else "does not exist"
        runs = sorted(path.parent for path in directory.glob(f"*/{_CONFIG}"))
        such = f"one of the runs in it, such as {runs[-1]}" if runs else "the directory of a run, such as outputs/char_1m/..."
        raise UsageError(f"got {directory} as a run, but it {what}; give {such}")
    data = config.load(path)
    if not isinstance(data.get("format"), int) or data["format"] > FORMAT or "experiment" not in data:
        raise UsageError(f"got {path} of format {data.get('format')!r}; this Craft reads format {FORMAT}: upgrade Craft")
    return Record(directory, data)


def write(directory: Path, data: Mapping[str, Any], tokenizer: Mapping[str, Any] | None) -> None:
    """Write config.json and tokenizer.json; the configuration comes last and says that the directory is a run."""
    if tokenizer is not None:
        store.write_json(directory / _TOKENIZER, dict(tokenizer))
    store.write_json(directory / _CONFIG, {"format": FORMAT, **data})


def open_new(out: Path | None, name: str) -> Path:
    """Return the directory of a new run: `out`, or outputs/NAME/UTC time.

    Raises
    ------
    UsageError
        If `out` is taken: nothing is ever written over.
    """
    if out is None:
        parent, stamp = Path("outputs") / name, time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        numbered = (parent / (stamp if n == 1 else f"{stamp}-{n}") for n in range(1, 10_000))
        return next(path for path in numbered if not path.exists())
    if out.is_dir() and not _taken(out):
        return out
    if out.exists():
        raise UsageError(f"got --out {out}, which is taken; choose another directory, or go on with it by --resume auto")
    return out


def _taken(directory: Path) -> bool:
    """Whether there is anything but what a run leaves that was killed before it was one: its lock and its tokenizer."""
    names = {path.name for path in directory.iterdir()}
    begun = {_TOKENIZER} if store.LOCK in names else set()
    return any(not name.startswith(".") for name in names - begun)


def newest(name: str) -> Path | None:
    """Return the newest run of an experiment under outputs/, by the time in its name; None if there is none."""
    parent = Path("outputs") / name
    runs = sorted(path.parent for path in parent.glob(f"*/{_CONFIG}"))
    return runs[-1] if runs else None


def versions() -> dict[str, str]:
    """Return the versions of Python, Craft and the libraries it computes with."""
    found = {"python": platform.python_version(), "craft": metadata.version("craft") if _installed("craft") else "source"}
    return found | {name: metadata.version(name) for name in _LIBRARIES if _installed(name)}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def facts(task: Task, run: Run, name: str) -> dict[str, Any]:
    """Return what config.json says of a run, without its format: everything that its bits depend on.

    Parameters
    ----------
    task, run
        What is trained, and how.
    name
        Name of the experiment.
    """
    module = origin(type(task.experiment)) if task.experiment is not None else ""
    return {
        "experiment": {
            "module": module,
            "name": name,
            "values": {} if task.experiment is None else config.to_dict(task.experiment),
            "files": experiment_files(type(task.experiment)),
        },
        "run": config.to_dict(
            attrs.evolve(run, out=None, resume="", resume_exact=False, fork=None, extend=False, profile=0, debug=False)
        ),
        "model": _model(task),
        "steps": task.steps,
        "seed": task.seed,
        "data": {**task.data.describe(), "fingerprint": task.data.fingerprint, **_epochs(task)},
        "code": code_fingerprint(type(task.experiment)),
        "versions": versions(),
    }


def samples(batch: Any) -> list[int]:
    """Return the numbers of a batch's samples; none where it does not number them."""
    found = getattr(batch, "sample_B", None)
    return [] if found is None else [int(one) for one in found]


def write_halted(directory: Path, step: int, found: list[int], metrics: Mapping[str, Any]) -> None:
    """Write halted.json: the step whose loss or gradient was not finite, its samples, and what it returned (text where NaN)."""
    numbers = {name: float(value) for name, value in metrics.items() if value.numel() == 1}
    shown = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    store.write_json(directory / "halted.json", {"step": step, "samples": found, "metrics": shown})


def _model(task: Task) -> dict[str, Any]:
    """Return the size of the model: what is looked up or multiplied at the ends of it counts apart."""
    from craft import param  # torch with it, which reading a run does not need

    if task.model is None:
        return {}
    ends = ("embed", "position_embed", "head")
    sizes = {
        "parameters": param.count(task.model.spec),
        "parameters_without_embedding": param.count(task.model.spec, without=ends),
    }
    return sizes | {"flops_per_step": task.flops}


def _epochs(task: Task) -> dict[str, float]:
    """Return how often the run goes through its training data, where the source tells: beyond one it sees them again."""
    epochs = getattr(task.data, "epochs", None)
    return {"epochs": round(epochs(task.steps), 4)} if epochs else {}


def origin(cls: type[Any]) -> str:
    """Return the module of a class, by the name it can be imported under also where it was started as a program."""
    spec = getattr(sys.modules.get(cls.__module__), "__spec__", None)
    return spec.name if cls.__module__ == "__main__" and spec else cls.__module__


def code_fingerprint(cls: type[Any] = object) -> str:
    """Hash Craft's own source and the files of an experiment's class and its bases: what bits depend on beside numbers."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for found in experiment_files(cls).values():
        digest.update(found.encode())
    return digest.hexdigest()


def experiment_files(cls: type[Any]) -> dict[str, str]:
    """Return the SHA-256 of the files of an experiment's class and its bases, by module."""
    modules = {origin(base): getattr(sys.modules[base.__module__], "__file__", None) for base in cls.__mro__}
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in modules.items() if file}
