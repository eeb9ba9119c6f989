"""Checkpoints whose bytes are changed: none may be loaded as if nothing had happened."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from craft import checkpoint, store, tree
from tools.chaos.runs import experiment

__all__ = ["Corruptions", "corrupt"]


@attrs.define
class Corruptions:
    """What came of changing bytes."""

    tried: int = 0
    """Checkpoints that were changed."""
    refused: int = 0
    """Those that were refused with a sentence."""
    silent: list[str] = attrs.field(factory=list)
    """Those that were loaded."""


def corrupt(
    folder: Path, run: Path, number: int, *, seed: int = 0, tell: Callable[[str], None] = lambda text: None
) -> Corruptions:
    """Flip a bit, cut, lengthen, empty, swap or delete a file of a checkpoint, many times, and load it each time."""
    source = sorted(run.glob("checkpoints/step-*"))[-1]
    like = experiment(folder).build()
    state = like.init(0)
    draw, found = random.Random(seed), Corruptions()
    for index in range(number):
        place = folder / "corrupt" / source.name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        what = _change(sorted(place.iterdir()), draw)
        found.tried += 1
        try:
            loaded = checkpoint.load(place, state)
        except (store.Corrupt, checkpoint.Mismatch):
            found.refused += 1
        else:
            found.silent.append(f"{what} ({len(tree.leaves(loaded))} leaves)")
        if index % 100 == 99:
            tell(f"{found.tried} of {number} changed, {found.refused} refused, {len(found.silent)} loaded silently")
    return found


def _change(files: list[Path], draw: random.Random) -> str:
    path = draw.choice(files)
    content, way = (
        bytearray(path.read_bytes()),
        draw.choice(("flip", "flip", "flip", "cut", "longer", "empty", "zeros", "delete")),
    )
    place = draw.randrange(len(content))
    if way == "delete":
        path.unlink()
        return f"{path.name} deleted"
    if way == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif way == "cut":
        del content[place:]
    elif way == "longer":
        content += bytes(draw.randrange(256) for _ in range(draw.randrange(1, 64)))
    elif way == "empty":
        content.clear()
    else:  # a block that was never written, as after a power cut
        end = min(len(content), place + 512)
        while not any(content[place:end]):
            place, end = max(0, place - 512), place
        content[place:end] = bytes(end - place)
    path.write_bytes(content)
    return f"{path.name}, {way} at {place}"
