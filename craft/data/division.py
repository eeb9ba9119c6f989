"""Which split a document belongs to: training, validation or test, always one of them."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator

import attrs

from craft.data.errors import DataError
from craft.data.part import Part

__all__ = ["SPLITS", "Division", "divide", "joined", "shares"]

SPLITS = ("train", "validation", "test")
_WAYS = ("contiguous", "hash")
_SMALL = 100
"""A document that is at most this part of the whole is never cut by a contiguous division."""


def shares(text: str) -> tuple[float, ...]:
    """Read the shares of the splits: `0.9,0.05,0.05`.

    Raises
    ------
    DataError
        If these are not three numbers that add up to one, the first two above 0.
    """
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(map(math.isfinite, found)) or min(found) < 0 or not min(found[:2]) > 0:
        raise DataError(f"got the split {text!r}; expected three shares such as 0.9,0.05,0.05, of which the test's may be 0")
    if abs(sum(found) - 1) > 1e-6:
        raise DataError(f"got the split {text!r}, which adds up to {sum(found):g}; expected shares that add up to 1")
    return found


def _shares(instance: object, attribute: object, value: str) -> None:
    shares(value)


def _way(instance: object, attribute: object, value: str) -> None:
    if value not in _WAYS:
        raise DataError(f"got the division {value!r}; expected {' or '.join(_WAYS)}")


@attrs.frozen
class Division:
    """How a text is divided."""

    split: str = attrs.field(default="0.9,0.05,0.05", validator=_shares)
    """Shares of training, validation and test."""
    by: str = attrs.field(default="contiguous", validator=_way)
    """`contiguous`: the training text comes first, then validation, then test; `hash`: each document by the hash of its
    beginning, so that equal documents are in the same split."""


def divide(parts: Iterable[Part], division: Division, total: int) -> Iterator[tuple[int, Part]]:
    """Give each part to a split.

    Contiguously, a text is cut at the very byte (the character it belongs to) where a document is long: of several parts, or
    more than a hundredth of the whole. A smaller document goes as a whole where its beginning lies.

    Parameters
    ----------
    parts
        The documents.
    division
        How they are divided.
    total
        Bytes of UTF-8 of them all; only contiguous divisions need it.

    Yields
    ------
    The number of the split in `SPLITS`, and a part; one that is cut ends a document in each.
    """
    share = shares(division.split)
    if division.by == "hash":
        yield from _hashed(parts, list(itertools.accumulate(share[:2])))
    else:
        last, middle = round(total * share[2]), round(total * share[1])
        yield from _cut(parts, [total - middle - last, total - last], total)


def _hashed(parts: Iterable[Part], bounds: list[float]) -> Iterator[tuple[int, Part]]:
    split, begins = 0, True
    for part in parts:
        if begins:
            digest = hashlib.sha256(part.text.encode()).digest()
            split = bisect.bisect_right(bounds, int.from_bytes(digest[:8], "big") / 2**64)
            split = min(split, 1 + (bounds[1] < 1 - 1e-9))  # an empty test stays empty
        yield split, part
        begins = part.ends


def _cut(parts: Iterable[Part], bounds: list[int], total: int) -> Iterator[tuple[int, Part]]:
    at, begins, where = 0, True, 0
    for part in parts:
        if not part.text:  # the mark of an end
            yield where, part
            begins = True
            continue
        size = len(part.text.encode())
        small = begins and part.ends and size * _SMALL <= total
        begins, split = part.ends, bisect.bisect_right(bounds, at)
        while not small and split < 2 and bounds[split] < at + size:
            head, part = _two(part, bounds[split] - at)
            if head.text:
                yield split, head
            at, size, split = at + len(head.text.encode()), len(part.text.encode()), split + 1
        yield split, part
        at, where = at + size, split


def _two(part: Part, place: int) -> tuple[Part, Part]:
    """Cut a part at a byte, before the character that has it."""
    content = part.text.encode()
    while place and content[place] & 0xC0 == 0x80:
        place -= 1
    return Part(content[:place].decode(), ends=True), part._replace(text=content[place:].decode())


def joined(parts: Iterable[Part], *, lines: bool) -> Iterator[Part]:
    """Give each document that lacks one a line's end, where nothing else shows where it ends."""
    last = ""
    for part in parts:
        last = part.text[-1:] or last
        missing = lines and part.ends and last != "\n"
        yield Part(f"{part.text}\n", ends=True, added=1) if missing else part
