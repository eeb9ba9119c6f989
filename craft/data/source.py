"""Where text lies: a name, a file, a folder, a Hugging Face dataset; and the documents in it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from craft.data import corpora
from craft.data.errors import DataError
from craft.data.formats import Reading, binary, read_file
from craft.data.part import Part, documents

__all__ = ["Source", "find"]


@attrs.frozen
class Source:
    """Text that can be read again and again, always the same documents in the same order."""

    name: str
    """`stdlib`, `python`, `shakespeare`, or the name of the file, folder or dataset."""
    place: str
    """What messages call it."""
    parts: Callable[[], Iterator[Part]]
    """Read it."""
    paths: tuple[Path, ...] = ()
    """The files that it is read from, in order."""
    reading: Reading = attrs.field(factory=Reading)
    """How it is read."""

    @property
    def files(self) -> int:
        """How many files it is read from; 0 where there are none."""
        return len(self.paths)


def find(source: str, reading: Reading | None = None) -> Source:
    """Find what a word stands for; nothing is read yet but the names of files.

    `stdlib` is the source code of the running Python's standard library without its tests: about 10 MB of ASCII, other for
    each version of Python; its lines end alike on every system. `python` is that and the Python files of every installed
    package. `shakespeare` is tiny Shakespeare, 1,115,394 characters, downloaded once into the user's cache. `hf:NAME`,
    `hf:NAME:CONFIG` and `hf:NAME:CONFIG:SPLIT` are datasets of the Hugging Face hub, streamed; `hf:` and the path of a
    folder, one that `save_to_disk` wrote. Anything else is the path of a file or a folder; write `./stdlib` for a file of
    that name. Of a folder, every text file below it is read, in the order of their POSIX paths: hidden files and folders,
    and binary files (those with a NUL byte), are left out.

    Parameters
    ----------
    source
        The word.
    reading
        How files are read.

    Raises
    ------
    DataError
        If there is no such thing.
    """
    reading = reading or Reading()
    if source in corpora.NAMES:
        files = corpora.files(source)
        return Source(source, corpora.place(source), lambda: _texts(corpora.texts(files)), tuple(files), reading)
    if source.startswith("hf:"):
        return _dataset(source.removeprefix("hf:"), reading)
    return _from_path(source, reading)


def _texts(texts: Iterator[str]) -> Iterator[Part]:
    for text in texts:
        yield from documents([text])


def _from_path(source: str, reading: Reading) -> Source:
    if not source.strip():
        raise DataError(f"got the source {source!r}; give {', '.join(corpora.NAMES)}, or the path of a file or folder")
    path = Path(os.path.expanduser(source))
    # The functions of os.path answer where those of Path raise: for a name too long, or with a NUL in it.
    if os.path.isfile(path):
        return Source(path.name, source, lambda: read_file(path, reading), (path,), reading)
    if not os.path.isdir(path):
        raise DataError(_missing(source, path))
    files = corpora.below(path, lambda entry: not entry.name.startswith("."))
    files = [file for file in files if file.suffix == ".parquet" or not binary(file)]

    def parts() -> Iterator[Part]:
        for file in files:
            yield from read_file(file, reading)

    return Source(path.resolve().name, source, parts, tuple(files), reading)


def _missing(source: str, path: Path) -> str:
    if os.path.exists(path):
        return f"{source} is neither a file nor a folder; give a text file"
    first = next((place for place in (path, *path.parents) if os.path.isdir(place.parent)), path)
    try:
        names = sorted(entry.name for entry in first.parent.iterdir())
    except OSError:
        names = []  # a folder that may be entered but not listed: there is nothing to suggest
    near = [str(first.parent / name) for name in difflib.get_close_matches(first.name, names)]
    near = difflib.get_close_matches(source, corpora.NAMES, 1) + near
    hint = f"did you mean {' or '.join(near)}?" if near else "give one of these"
    return f"got source {source[:200]!r}, which is neither {', '.join(corpora.NAMES)}, nor the path of a file or folder; {hint}"


def _dataset(name: str, reading: Reading) -> Source:
    """Make a source of a dataset of the library `datasets`."""
    try:
        import datasets
    except ImportError as error:
        raise DataError("Hugging Face datasets need the package datasets: pip install 'craft[data]'") from error

    def rows() -> Any:
        if os.path.isdir(os.path.expanduser(name)):
            return datasets.load_from_disk(os.path.expanduser(name))
        repository, config, split = [*name.split(":"), "", ""][:3]
        return datasets.load_dataset(repository, config or None, split=split or "train", streaming=True)

    def parts() -> Iterator[Part]:
        try:
            found = rows()
        except Exception as error:  # the library raises errors of a dozen kinds
            raise DataError(f"could not open the dataset {name} ({error}); give a dataset of the hub or a saved one") from error
        if isinstance(found, dict):
            raise DataError(f"got the dataset {name} with the splits {', '.join(found)}; give the folder of one of them")
        for number, row in enumerate(found):
            text = row.get(reading.field)
            if isinstance(text, str):
                yield from documents([text])
            elif reading.skip_bad:
                reading.skipped += 1
            else:
                raise DataError(f"row {number} of {name} has no text {reading.field!r}; it has {', '.join(row)}: name one")

    return Source(name, f"hf:{name}", parts, (), reading)
