"""Power cuts, as a model of a disk: what was written and not synced may be lost, torn, or there in part.

The method is that of SQLite's crash tests: the operations of the store are recorded, and every state that a cut between two of
them may legally leave is built and looked at. Contents are lost by file, names by directory, and renames in their order.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from craft import checkpoint, record, store
from craft.store import disk
from craft.track.text import blocks
from tools.chaos.runs import go

__all__ = ["Cuts", "Disk", "cut_a_run"]

Rows = list[dict[str, Any]]
Samples = list[tuple[int, str]]


class Disk:
    """A hook for the disk that records what happens below a directory, and rebuilds what a power cut may leave of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[str, Path, Any]] = []
        self._known: set[Path] = set()

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        """Record an operation, with the content that a library wrote by itself."""
        if self.root not in (path, *path.parents):
            return
        if name == "write":
            self._known.add(path)
        if name == "fsync" and path not in self._known:  # a library wrote it
            self.log.append(("write", path, path.read_bytes()))
        self.log.append((name, path, detail))

    def crash(self, length: int, lose: random.Random, target: Path) -> None:
        """Build in `target` one of the states that a cut after `length` operations may leave."""
        state = _State()
        for operation in self.log[:length]:
            state.do(*operation)
        for path, data in state.left(lose):
            place = target / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


class _State:
    """Files with what of them is synced, and renames that are not."""

    def __init__(self) -> None:
        self.contents: dict[Path, bytes] = {}
        self.synced: dict[Path, int] = {}
        self.named: set[Path] = set()
        self.renames: list[tuple[Path, Path]] = []

    def do(self, name: str, path: Path, detail: Any) -> None:
        if name == "open":
            self.contents.setdefault(path, b"")
        elif name == "write":
            self.contents[path] = self.contents.get(path, b"") + detail
        elif name == "truncate":
            self.contents[path] = self.contents[path][:detail]
            self.synced[path] = min(self.synced.get(path, 0), detail)
        elif name == "fsync":
            self.synced[path] = len(self.contents[path])
        elif name == "rename":
            self.renames.append((path, detail))
        elif name == "fsync_dir":
            self.named |= {known for known in self.contents if known.parent == path}
            for pair in [pair for pair in self.renames if pair[1].parent == path]:
                self.settle(*pair)
                self.renames.remove(pair)

    def settle(self, source: Path, place: Path) -> None:
        """Carry a rename out; a file of the new name is gone."""
        for path in [path for path in self.contents if path == source or source in path.parents]:
            moved = place / path.relative_to(source) if path != source else place
            self.contents[moved] = self.contents.pop(path)
            self.synced[moved] = self.synced.pop(path, 0)
            if path in self.named or path == source:
                self.named.add(moved)

    def left(self, lose: random.Random) -> Iterator[tuple[Path, bytes]]:
        for pair in self.renames[: lose.randint(0, len(self.renames))]:  # a journal keeps the order of names
            self.settle(*pair)
        for path, data in self.contents.items():
            if path not in self.named and lose.random() < 0.5:
                continue
            sure = self.synced.get(path, 0)
            more = len(data) - sure
            yield path, data[: sure + lose.choice([0, more // 2, more])]


@attrs.define
class Cuts:
    """What came of cutting the power."""

    states: int = 0
    """States of the disk that were looked at."""
    wrong: list[str] = attrs.field(factory=list)
    """What was lost, or loaded and wrong."""


def cut_a_run(folder: Path, each: int = 4, tell: Callable[[str], None] = lambda text: None) -> Cuts:
    """Cut the power between any two operations of a whole run, several ways each, and look at what is left."""
    out = folder / "powered"
    model, done = Disk(out), []
    former, disk.HOOK = disk.HOOK, model
    try:
        go(folder, out)
        done = _saved(model)
    finally:
        disk.HOOK = former
    rows, seals = store.read_journal(out / "metrics.jsonl"), _seals(model)
    samples = blocks((out / "samples.txt").read_text(encoding="utf-8"))
    found = Cuts()
    for length in range(1, len(model.log) + 1):
        durable = max((step for place, step in done if place < length), default=-1)
        for seed in range(each):
            target = folder / "cut"
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            model.crash(length, random.Random(1000 * length + seed), target)
            found.states += 1
            if problem := _problem(target, durable, rows, samples, seals):
                found.wrong.append(f"after operation {length} ({model.log[length - 1][0]}), seed {seed}: {problem}")
        if length % 50 == 0:
            tell(f"{found.states} states after {length} of {len(model.log)} operations, {len(found.wrong)} wrong")
    return found


def _saved(model: Disk) -> list[tuple[int, int]]:
    """Return where in the log a checkpoint has become durable, and its step: the directory is synced after its rename."""
    found = []
    for index, (name, _, detail) in enumerate(model.log):
        if name == "rename" and detail.name.startswith("step-"):
            rest = range(index, len(model.log))
            synced = next(at for at in rest if model.log[at][0] == "fsync_dir" and model.log[at][1] == detail.parent)
            found.append((synced, int(detail.name.removeprefix("step-"))))
    return found


def _seals(model: Disk) -> dict[int, str]:
    """Return the seal of each manifest that was written, by its step."""
    written = [json.loads(data) for name, path, data in model.log if name == "write" and path.name == store.MANIFEST]
    return {one["step"]: one["seal"] for one in written}


def _problem(out: Path, durable: int, rows: Rows, samples: Samples, seals: dict[int, str]) -> str:
    places = out / record.CHECKPOINTS
    for place in (out, places):
        store.sweep_litter(place)
    try:
        newest = checkpoint.latest(places, lambda text: None)
    except store.Corrupt as error:
        return str(error)
    if newest is None:
        return f"the checkpoint of step {durable} is lost" if durable >= 0 else ""
    if newest.step < durable:
        return f"the checkpoint of step {durable} is lost, step {newest.step} is left"
    if newest.manifest["seal"] != seals[newest.step]:
        return f"the checkpoint of step {newest.step} holds something else"
    try:
        record.read(out)
        kept = [row for row in store.read_journal(out / "metrics.jsonl") if row["step"] <= newest.step]
    except (ValueError, OSError) as error:
        return f"step {newest.step} cannot be gone on with: {error}"
    expected = [row for row in rows if row["step"] <= newest.step]
    if kept != expected:
        return f"{len(kept)} of {len(expected)} reports up to step {newest.step} are left"
    path = out / "samples.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    written = [block for block in blocks(text) if block[0] <= newest.step]
    whole = [block for block in samples if block[0] <= newest.step]
    return "" if written == whole else f"{len(written)} of {len(whole)} samples up to step {newest.step} are left"
