"""What all contestants are given: the same initial weights and the same batches, in a folder as NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tools.bench.cases import Case

__all__ = ["BATCHES", "Arrays", "Material", "make", "weights"]

Arrays = dict[str, npt.NDArray[Any]]
"""Arrays by name."""

BATCHES = 16
"""Different batches, taken in turn."""


@attrs.frozen
class Material:
    """The folder that a worker reads."""

    folder: Path = attrs.field(converter=Path)
    """Where the arrays lie."""

    def weights(self) -> Arrays:
        """Read the initial weights by name; matrices are (in, out)."""
        with np.load(self.folder / "weights.npz") as stored:
            return dict(stored)

    def batches(self) -> npt.NDArray[np.int64]:
        """Read the token ids, shape (number, batch, context + 1): inputs and targets overlap."""
        ids: npt.NDArray[np.int64] = np.load(self.folder / "batches.npy")
        return ids


def make(case: Case, folder: Path, text: str = "") -> Material:
    """Write a case's weights and batches.

    Parameters
    ----------
    case
        The shapes.
    folder
        Where they go; it is made.
    text
        What characters are taken from, where it has no more than the vocabulary; else ids are drawn at random, which
        takes as long to train on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "batches.npy").exists():
        np.savez(folder / "weights.npz", allow_pickle=False, **weights(case))
        np.save(folder / "batches.npy", _ids(case, text))
    return Material(folder)


def weights(case: Case, seed: int = 0) -> Arrays:
    """Draw GPT-2's initial weights: normal with deviation 0.02, smaller where they are added to the stream."""
    draw = np.random.default_rng(seed)
    width = case.width

    def normal(*shape: int, std: float = 0.02) -> npt.NDArray[np.float32]:
        return draw.normal(0.0, std, shape).astype(np.float32)

    def flat(length: int, value: float = 0.0) -> npt.NDArray[np.float32]:
        return np.full(length, value, np.float32)

    last = 0.02 / (2 * case.depth) ** 0.5
    made = {"wte": normal(case.vocabulary, width), "wpe": normal(case.context, width)}
    for depth in range(case.depth):
        block = {
            "ln1.weight": flat(width, 1.0),
            "ln1.bias": flat(width),
            "qkv.weight": normal(width, 3 * width),
            "qkv.bias": flat(3 * width),
            "proj.weight": normal(width, width, std=last),
            "proj.bias": flat(width),
            "ln2.weight": flat(width, 1.0),
            "ln2.bias": flat(width),
            "fc.weight": normal(width, 4 * width),
            "fc.bias": flat(4 * width),
            "out.weight": normal(4 * width, width, std=last),
            "out.bias": flat(width),
        }
        made |= {f"blocks.{depth}.{name}": value for name, value in block.items()}
    return {**made, "lnf.weight": flat(width, 1.0), "lnf.bias": flat(width)}


def _ids(case: Case, text: str) -> npt.NDArray[np.int64]:
    shape = (BATCHES, case.batch, case.context + 1)
    draw = np.random.default_rng(1)
    letters = sorted(set(text))
    if not 0 < len(letters) <= case.vocabulary or len(text) <= case.context + 1:
        return draw.integers(0, case.vocabulary, shape)
    number = {letter: place for place, letter in enumerate(letters)}
    ids: npt.NDArray[np.int64] = np.array([number[letter] for letter in text], np.int64)
    start = draw.integers(0, len(ids) - case.context - 1, shape[:2])
    windows: npt.NDArray[np.int64] = ids[start[..., None] + np.arange(case.context + 1)]
    return windows
