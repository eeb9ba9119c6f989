"""What is uploaded of a run on request: its newest checkpoint, with what makes it a run that Craft can use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["Upload", "newest"]


class Upload(NamedTuple):
    """A checkpoint to upload.

    Attributes
    ----------
    step
        Updates made.
    files
        Files by their name below the run's directory; downloaded, they are a run for `craft generate` and `craft evaluate`.
    """

    step: int
    files: dict[str, Path]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def newest(directory: Path) -> Upload | None:
    """Return the newest checkpoint of a run, its configuration and its tokenizer; None where there is no checkpoint.

    A checkpoint takes its name when it is whole; to read its hashes would take torch into the process that uploads.
    """
    found = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in (directory / "checkpoints").glob("step-*")]
    numbered = [(int(match[1]), path) for match, path in found if match]
    if not numbered:
        return None
    step, place = max(numbered)
    paths = [directory / "config.json", directory / "tokenizer.json", *sorted(place.iterdir())]
    return Upload(step, {path.relative_to(directory).as_posix(): path for path in paths if path.is_file()})
