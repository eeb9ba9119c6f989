"""The preparation that is broken: a vocabulary and a dozen shards of three files, one of them packed; and power cuts of it."""

from __future__ import annotations

import gzip
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from craft.data import part, preparation
from craft.data.index import JOURNAL
from craft.data.preparation import Settings, prepare
from craft.data.source import find
from craft.store import LOCK, disk
from tools.chaos.power import Cuts, Disk
from tools.chaos.runs import Subject

__all__ = ["PREPARATION", "cut_a_preparation"]

_LINES = 400
_OWN = (JOURNAL, LOCK, "verified.json")
"""Files that tell when and how it was made."""
_WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dogs", "run", "far", "away", "from", "here", "over", "hills"]


def _sources(folder: Path) -> Path:
    """Write the texts, where they are not there."""
    place = folder / "texts"
    if not place.is_dir():
        draw = random.Random(5)
        making = folder / "texts.part"
        making.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            text = "\n".join(" ".join(draw.choices(_WORDS, k=9)) + f" {number}." for _ in range(_LINES))
            name, data = f"{number}.txt", text.encode()
            (making / name).write_bytes(data)
        (making / "3.txt.gz").write_bytes(gzip.compress(data, mtime=0))
        making.rename(place)
    return place


def _go(folder: Path, out: Path) -> None:
    """Prepare the texts into `out`, or go on with what is there: shards of at least 2,000 ids."""
    former = part.LIMIT, preparation.SHARD
    part.LIMIT, preparation.SHARD = 1500, 2000
    try:
        prepare([find(str(_sources(folder)))], Settings(tokenizer="bpe:300"), out)
    finally:
        part.LIMIT, preparation.SHARD = former


def _ended(out: Path) -> dict[str, str]:
    """Return the SHA-256 of all that a preparation leaves, but for what is told of this one alone."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in _OWN and not path.name.startswith(".tmp-")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


PREPARATION = Subject(_go, _ended, 0.2)
"""The preparation of a folder of four files."""


def cut_a_preparation(folder: Path, each: int = 4, tell: Callable[[str], None] = lambda text: None) -> Cuts:
    """Cut the power between any two operations, several ways each, prepare again, and compare with what nobody broke."""
    out, target = folder / "powered", folder / "cut"
    model = Disk(out)
    former, disk.HOOK = disk.HOOK, model
    try:
        _go(folder, out)
    finally:
        disk.HOOK = former
    expected, found = _ended(out), Cuts()
    for length in range(1, len(model.log) + 1):
        for seed in range(each):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            model.crash(length, random.Random(1000 * length + seed), target)
            found.states += 1
            if problem := _problem(folder, target, expected):
                found.wrong.append(f"after operation {length} ({model.log[length - 1][0]}), seed {seed}: {problem}")
        tell(f"{found.states} states after {length} of {len(model.log)} operations, {len(found.wrong)} wrong")
    return found


def _problem(folder: Path, target: Path, expected: dict[str, str]) -> str:
    try:
        _go(folder, target)
    except (ValueError, OSError) as error:
        return str(error)
    there = _ended(target)
    differing = sorted(name for name in {**there, **expected} if there.get(name) != expected.get(name))
    return f"{', '.join(differing)} differ" if differing else ""
