"""Parts: a stream of documents in pieces that fit into memory, whatever the size of a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["LIMIT", "Part", "documents"]

LIMIT = 1 << 20
"""Characters of a part, about twice as many at most."""
_CLEAN = re.compile(r"(?<=\S\n)(?=\S)")
"""Between two lines that have no blanks at their border: subword tokenizers cut there anyway."""


class Part(NamedTuple):
    """A piece of a document.

    Attributes
    ----------
    text
        Its text.
    ends
        Whether the document ends with it.
    added
        Characters at its end that mark the end and are not the document's own.
    """

    text: str
    ends: bool = True
    added: int = 0


def documents(texts: Iterable[str], separator: str = "") -> Iterator[Part]:
    """Cut a text, which comes in pieces of any size, into the parts of its documents.

    Where it is cut depends on the text alone: at a line's end where there is one.

    Parameters
    ----------
    texts
        The text.
    separator
        A line that stands between two documents and belongs to neither; empty: the text is one document. Documents
        without a character are left out.
    """
    mark = f"\n{separator}\n" if separator else ""
    most = 2 * LIMIT + len(mark)  # what must have been seen before a part is cut: else the pieces would decide
    kept, lead, begun = "\n", 1, False  # `lead` characters were told already, or stand for a line's end before the text
    for text in texts:
        kept += text
        while True:
            at = kept.find(mark, 0, most) if mark else -1
            if at >= 0:
                if begun or at + 1 > lead:
                    yield Part(kept[lead : at + 1])
                kept, lead, begun = kept[at + len(mark) - 1 :], 1, False
            elif len(kept) >= most:
                end = _border(kept)
                yield Part(kept[lead:end], ends=False)
                lead = int(kept[end - 1] == "\n")
                kept, begun = kept[end - lead :], True
            else:
                break
    if mark and kept.endswith(mark[:-1]):
        kept = kept[: -len(separator)]
    if begun or kept[lead:]:
        yield Part(kept[lead:])


def _border(text: str) -> int:
    """Choose where a part ends, from `LIMIT` to twice that."""
    found = _CLEAN.search(text, LIMIT, 2 * LIMIT)
    if found:
        return found.start()
    line = text.find("\n", LIMIT, 2 * LIMIT)
    return line + 1 if line >= 0 else LIMIT
