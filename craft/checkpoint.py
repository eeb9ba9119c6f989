"""State trees on disk: `step-00001000/{params,state}.safetensors` and a manifest, all or nothing.

Leaves are named by their path in the tree. `params.safetensors` holds what is under `params.`, without that prefix, so
that safetensors and NumPy alone can read a model; `state.safetensors` holds the rest. The same state writes the same bytes.
"""

from __future__ import annotations

import errno
import math
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from craft import store, tree
from craft.types import Tensor, Tree

__all__ = [
    "FORMAT",
    "Checkpoint",
    "Mismatch",
    "find",
    "latest",
    "load",
    "load_params",
    "open_checkpoint",
    "prune",
    "save",
    "stage",
]

FORMAT = 1
_PARAMS = "params.safetensors"
_STATE = "state.safetensors"
_SHOWN = 10


class Mismatch(ValueError):  # noqa: N818 - reads as `checkpoint.Mismatch`
    """A checkpoint holds other leaves than the tree it is loaded into."""


class Checkpoint(NamedTuple):
    """A checkpoint on disk.

    Attributes
    ----------
    step
        Updates made.
    path
        Its directory.
    manifest
        What MANIFEST.json says.
    """

    step: int
    path: Path
    manifest: dict[str, Any]


def save(
    directory: Path, state: Tree, *, memory: dict[str, Any], extra: dict[str, Any], pending: dict[str, float] | None = None
) -> Path:
    """Write a state, durably and as a whole; the arguments and errors are those of `stage`.

    Returns
    -------
    The checkpoint's directory.
    """
    staged = stage(directory, state, memory=memory, extra=extra, pending=pending)
    staged.commit()
    return staged.directory


def stage(
    directory: Path, state: Tree, *, memory: dict[str, Any], extra: dict[str, Any], pending: dict[str, float] | None = None
) -> store.Staged:
    """Hand a state to the operating system, as a copy: it may change from here on, while `commit` waits for the disk.

    Parameters
    ----------
    directory
        Where checkpoints are, such as `RUN/checkpoints`; it is made where there is none.
    state
        Tree of tensors with a leaf `step`.
    memory
        What hooks remember, JSON data.
    extra
        How the run computes (mode, precision, threads, versions), JSON data; no clock, no path.
    pending
        What the step's hooks are to be told, where they have not all run: a resumed run begins with them.

    Returns
    -------
    What `commit` makes a checkpoint of, durably and as a whole; it may be called from another thread.

    Raises
    ------
    ValueError
        If a parameter is not finite, or something is no tensor.
    OSError
        If the disk is full or fails; the former checkpoints are untouched.
    """
    tensors = {path: _owned(path, leaf) for path, leaf in tree.named(state).items()}
    if "step" not in tensors:
        raise ValueError("got a state without a leaf 'step'; a checkpoint is named by it")
    _refuse_bad(tensors)
    _refuse_full(Path(directory), tensors)
    groups = _by_file(tensors)
    step = int(tensors["step"].max())  # a pack has one a trial
    manifest = {"format": FORMAT, "step": step, "leaves": _table(tensors), "memory": memory, "extra": extra}
    if pending is not None:
        manifest["pending"] = [
            [name, value if math.isfinite(value) else None] for name, value in pending.items()
        ]  # the order of names is that of a report
    files = {name: _writer(group) for name, group in groups.items()}
    return store.stage(Path(directory) / f"step-{step:08d}", files, manifest)


def _owned(path: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise ValueError(f"got {type(leaf).__name__} at {path}; expected a tensor: a state holds nothing else")
    return leaf.detach().to("cpu").contiguous()


def _is_param(path: str) -> bool:
    return path == "params" or path.startswith("params.")


def _refuse_bad(tensors: dict[str, Tensor]) -> None:
    for path, leaf in tensors.items():
        if _is_param(path) and leaf.is_floating_point() and not _finite(leaf):
            raise ValueError(
                f"got a number in {path} that is not finite; such a state is not saved: go back to a former checkpoint"
            )


def _finite(leaf: Tensor) -> bool:
    return bool(torch.isfinite(leaf.float() if leaf.itemsize == 1 else leaf).all())


def _refuse_full(directory: Path, tensors: dict[str, Tensor]) -> None:
    needed = sum(leaf.nbytes for leaf in tensors.values())
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free: free space", str(directory)
        )


def _by_file(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    storages = set()
    for path, leaf in tensors.items():
        if leaf.untyped_storage().data_ptr() in storages:
            leaf = leaf.clone()  # safetensors refuses to write one memory twice
        storages.add(leaf.untyped_storage().data_ptr())
        groups.setdefault(_file(path), {})[_key(path)] = leaf
    return groups


def _file(path: str) -> str:
    return _PARAMS if _is_param(path) else _STATE


def _key(path: str) -> str:
    return path.removeprefix("params.")


def _writer(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path, metadata={"format": "pt"})


def _table(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {
        path: {"dtype": _name(leaf.dtype), "shape": list(leaf.shape), "file": _file(path)} for path, leaf in tensors.items()
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbered(directory: Path) -> list[Path]:
    matches = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in Path(directory).glob("step-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def open_checkpoint(path: Path) -> Checkpoint:
    """Return one checkpoint, every byte of which is right.

    Raises
    ------
    Corrupt
        If it is missing or damaged.
    ValueError
        If it was written by a newer Craft.
    """
    return _open(Path(path), hashes=True)


def _open(path: Path, *, hashes: bool) -> Checkpoint:
    manifest = store.verify(path, hashes=hashes)
    if not isinstance(manifest.get("format"), int) or not isinstance(manifest.get("step"), int):
        raise store.Corrupt(f"{path} is no checkpoint: its manifest has no format or step")
    if manifest["format"] > FORMAT:
        raise ValueError(f"{path} has format {manifest['format']}; this Craft reads up to {FORMAT}: upgrade Craft")
    return Checkpoint(manifest["step"], path, manifest)


def _whole(paths: list[Path], warn: Callable[[str], None], *, hashes: bool) -> Iterator[Checkpoint]:
    for path in paths:
        try:
            yield _open(path, hashes=hashes)
        except store.Corrupt as error:
            warn(f"skipped the checkpoint {path.name}: {error}")


def find(directory: Path) -> list[Checkpoint]:
    """List the checkpoints that have a valid manifest and files of the right sizes, sorted by step.

    Raises
    ------
    ValueError
        If one was written by a newer Craft.
    """
    return sorted(_whole(_numbered(directory), lambda text: None, hashes=False), key=lambda found: found.step)


def latest(directory: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint whose every byte is right, or None where there is no checkpoint at all.

    Parameters
    ----------
    directory
        Where checkpoints are.
    warn
        Told of each damaged one that was passed over, and why.

    Raises
    ------
    Corrupt
        If there are checkpoints and every one is damaged: to start afresh would hide that.
    ValueError
        If the newest was written by a newer Craft.
    """
    paths = _numbered(directory)
    for found in _whole(paths[::-1], warn, hashes=True):
        return found
    if paths:
        raise store.Corrupt(
            f"all {len(paths)} checkpoints in {directory} are damaged; restore one from a copy, or start elsewhere"
        )
    return None


def load(path: Path, like: Tree) -> Tree:
    """Read a whole state.

    Parameters
    ----------
    path
        Directory of the checkpoint.
    like
        Tree of tensors (also on `meta`) of the same structure, shapes and types.

    Returns
    -------
    A tree as `like`, on the CPU, in memory of its own.

    Raises
    ------
    Mismatch
        If leaves are missing, unexpected, or of another shape or type; all are named.
    Corrupt
        If the checkpoint is damaged.
    ValueError
        If it was written by a newer Craft.
    """
    return _load(Path(path), like, tree.paths(like), lambda stored: True)


def load_params(path: Path, like: Tree) -> Tree:
    """Read only the parameters; the arguments and errors are those of `load`, with a tree of parameters."""
    names = [f"params.{name}" if name else "params" for name in tree.paths(like)]
    return _load(Path(path), like, names, _is_param)


def _load(path: Path, like: Tree, names: list[str], wanted: Callable[[str], bool]) -> Tree:
    manifest = _open(path, hashes=True).manifest
    values, structure = tree.flatten(like)
    table = {name: entry for name, entry in manifest.get("leaves", {}).items() if wanted(name)}
    expected = _table(dict(zip(names, values, strict=True)))
    _compare(path, table, expected)
    loaded: dict[str, Tensor] = {}
    for file in sorted({entry["file"] for entry in expected.values()}):
        loaded |= _read(path / file, [name for name in names if expected[name]["file"] == file])
    _compare(path, _table(loaded), expected)  # the file itself may say otherwise than the manifest
    return tree.unflatten(structure, [loaded[name] for name in names])


def _read(path: Path, names: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(_key(name)).clone() for name in names}  # a copy: the file stays free to change
    except (SafetensorError, OSError) as error:
        raise store.Corrupt(f"{path} cannot be read ({error}): use another copy") from error


def _compare(path: Path, stored: dict[str, Any], expected: dict[str, Any]) -> None:
    faults = [f"{name} is missing" for name in expected.keys() - stored.keys()]
    faults += [f"{name} is unexpected" for name in stored.keys() - expected.keys()]
    for name in expected.keys() & stored.keys():
        for what in ("shape", "dtype"):
            if stored[name][what] != expected[name][what]:
                faults.append(f"{name} has {what} {stored[name][what]} where {expected[name][what]} is expected")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        shown = "; ".join(sorted(faults)[:_SHOWN])
        raise Mismatch(f"{path} does not fit: {shown}{more}; build the state from the configuration it was saved with")


def prune(directory: Path, keep: int, *, best: int = -1, every: int = 0, known: Collection[str] = ()) -> list[Path]:
    """Delete old checkpoints; a damaged one never counts as kept, so that a whole one always stays.

    Parameters
    ----------
    directory
        Where checkpoints are.
    keep
        How many of the newest whole ones stay.
    best
        Step of one more that stays.
    every
        Those of multiples of so many steps stay; 0: none of them does.
    known
        Seals of checkpoints that this process has written and hashed: of them only the sizes are looked at again.

    Returns
    -------
    What was deleted.

    Raises
    ------
    ValueError
        If `keep` is below 1, or a checkpoint was written by a newer Craft.
    """
    if keep < 1:
        raise ValueError(f"got keep={keep}; expected 1 or more checkpoints")
    paths = _numbered(directory)
    whole = 0
    for index in reversed(range(len(paths))):
        whole += _is_whole(paths[index], known)
        if whole == keep:
            old = [path for path in paths[:index] if not _stays(int(path.name.removeprefix("step-")), best, every)]
            for path in old:
                store.remove(path)
            return old
    return []


def _is_whole(path: Path, known: Collection[str]) -> bool:
    for found in _whole([path], lambda text: None, hashes=False):
        return found.manifest["seal"] in known or any(_whole([path], lambda text: None, hashes=True))
    return False


def _stays(step: int, best: int, every: int) -> bool:
    return step == best or bool(every and step % every == 0)
