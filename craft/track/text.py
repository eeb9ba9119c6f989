"""Text for people: what a model wrote made safe to print, and numbers in a few characters."""

from __future__ import annotations

import json
import re

__all__ = ["block", "blocks", "count", "duration", "oneline", "parse", "visible"]


def visible(text: str) -> str:
    r"""Escape control characters, so that a text can neither move the cursor nor recolour the terminal.

    Parameters
    ----------
    text
        Any text; newlines and tabs stay.

    Returns
    -------
    The text with `\x1b` and its like written out.
    """
    return "".join(character if _harmless(character) else ascii(character)[1:-1] for character in text)


def _harmless(character: str) -> bool:
    return character in "\n\t " or character.isprintable()


def oneline(text: str) -> str:
    """Return the text on one line, its line breaks written out."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def block(step: int, prompt: str, text: str) -> str:
    """Lay out a sample: a heading with the step and the prompt, and the text indented below it.

    Parameters
    ----------
    step
        Updates made.
    prompt
        What the model went on from.
    text
        What it wrote, without the prompt.

    Returns
    -------
    Lines that end with a newline. Only a heading starts in the first column, whatever the model wrote.
    """
    shown = visible(json.dumps(prompt, ensure_ascii=False))
    lines = [
        f"== step {step}, after the prompt {shown}",
        *(f"    {line}".rstrip() for line in visible(text).rstrip("\n").split("\n")),
    ]
    return "\n".join(lines) + "\n"


def blocks(text: str) -> list[tuple[int, str]]:
    """Split what `block` has laid out, one after the other, into the step and the text of each."""
    pieces = re.split(r"(?m)^(?=== step \d)", text)
    return [(int(head[1]), piece) for piece in pieces if (head := re.match(r"== step (\d+)", piece))]


def parse(block: str) -> tuple[str, str]:
    """Return the prompt, quoted as in the heading, and the text of what `block` has laid out."""
    head, _, body = block.partition("\n")
    lines = body.rstrip("\n").split("\n")
    return head.partition(", after the prompt ")[2], "\n".join(line.removeprefix("    ") for line in lines)


def count(number: float) -> str:
    """Return a number in at most five characters: 950, 12.3k, 4.56M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{number / size:.3g}{letter}" if abs(number) < 999.5 * size else f"{number / size:.0f}{letter}"
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 42s, 3m05s, 2h07m, 4d03h."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{second}s"
