"""How long a batch takes: run as a program that prints milliseconds a batch as JSON, for each size of a batch."""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

from craft.data import Text

__all__ = ["main"]

_CONTEXT, _BATCHES = 256, 400


def main(source: str, sizes: list[int]) -> None:
    """Make batches of the 1M model's shapes from shards, one after the other."""
    torch.set_num_threads(1)
    found = {}
    for size in sizes:
        data = Text(source=source).open(context=_CONTEXT, batch=size, seed=0)
        data.batch(0)
        each = []
        for step in range(1, 1 + _BATCHES):
            began = time.perf_counter()
            data.batch(step)
            each.append(1e3 * (time.perf_counter() - began))
        found[str(size)] = statistics.median(each), statistics.mean(each)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.argv[2:]])
