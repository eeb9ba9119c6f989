"""Text to token shards: in bounded memory, over all cores, and gone on with where it was broken off.

The sources are read from their beginning to their end, once for their size and fingerprint, once for a vocabulary that is
made of the training split alone, and once for the ids. Each finished shard is on the disk before it is named in
prepare.jsonl; index.json is written last. The same text gives the same bytes, whatever the number of cores.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from craft import config, store
from craft.data import part
from craft.data.division import SPLITS, Division, divide, joined, shares
from craft.data.encode import Block, Encoded, blocks, encode, in_order
from craft.data.errors import DataError
from craft.data.index import FORMAT, INDEX, JOURNAL, TOKENIZER, Prepared, fingerprint, open_prepared
from craft.data.part import Part
from craft.data.shards import kind, write_shard
from craft.data.source import Source
from craft.data.survey import Survey, survey
from craft.data.tokenizer import BPE, Characters, TokenizerFile, load_tokenizer, named_tokenizer
from craft.step import Tokenizer
from craft.store.strict import dump

__all__ = ["Settings", "key", "prepare", "vocabulary"]

SHARD = 1 << 24
"""Ids of a shard, at least, but for the last."""
_SAMPLE = 200_000_000
"""Bytes of training text, at most, that a subword vocabulary is made of: evenly spread parts."""
Progress = Callable[[str, int, int], None]
"""(what is done, bytes done, bytes in all)."""


def _tokenizer(instance: Any, attribute: Any, value: str) -> None:
    named_tokenizer(value)


@attrs.frozen
class Settings:
    """How text becomes tokens."""

    tokenizer: str = attrs.field(default="char", validator=_tokenizer)
    """`char`, `byte`, `bpe:8192`, or the path of a tokenizer; see `named_tokenizer`."""
    division: Division = attrs.field(factory=Division)
    """How the text is divided."""
    lossy: bool = False
    """Whether a tokenizer may lose something of the text."""


def prepare(
    sources: Sequence[Source],
    settings: Settings,
    out: Path,
    *,
    weights: Sequence[float] = (),
    tokenizer: Tokenizer | None = None,
    surveys: Sequence[Survey] = (),
    progress: Progress | None = None,
) -> Prepared:
    """Prepare a text, or go on with a preparation that was broken off.

    Parameters
    ----------
    sources
        What is read.
    settings
        How it becomes tokens.
    out
        Directory of the result; made where there is none.
    weights
        Share of the training samples that comes from each source; empty: by their number of tokens.
    tokenizer
        A tokenizer to be used in place of the one that the settings name.
    surveys
        What `survey` said of the sources, where that is known.
    progress
        Told what is done.

    Raises
    ------
    DataError
        If a source cannot be read, a split would be empty, the tokenizer does not fit, or `out` holds something else.
    OSError
        If the disk is full: what is finished stays, and the same call goes on from there.
    """
    tell = progress or (lambda stage, done, total: None)
    if not sources:
        raise DataError("got no source; name a file, a folder, or a corpus such as stdlib")
    _make(out)
    looked = list(surveys) or [_look(source, tell) for source in sources]
    work = _Work(list(sources), looked, settings, out, list(weights), tokenizer, tell)
    with contextlib.ExitStack() as held:
        _wait(held, out, tell)
        if (out / INDEX).is_file():
            return work.same(open_prepared(out))
        store.sweep_litter(out)
        with store.Journal(out / JOURNAL) as journal:
            return work.go(journal)


def _make(out: Path) -> None:
    """Make the directory, and refuse one that holds something else."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        inside = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise DataError(f"got {out} for the result, which cannot be made ({error.strerror}); name another --out") from error
    if inside and not inside & {INDEX, JOURNAL}:
        raise DataError(f"got {out} for the result, which holds other files ({min(inside)} ...); name an empty --out")


def _wait(held: contextlib.ExitStack, out: Path, tell: Progress) -> None:
    """Take the directory, or wait until another process has done the work."""
    while not (out / INDEX).is_file():
        try:
            held.enter_context(store.lock(out))
            return
        except store.Busy:
            tell("waiting for another process", 0, 0)
            time.sleep(0.2)


def key(settings: Settings, looked: Survey, tokenizer: Tokenizer | None) -> str:
    """Name a preparation by its content: what is read, and how it becomes tokens."""
    return hashlib.sha256(dump(_plan([looked], settings, [1.0], _given(settings, tokenizer)), sort=True)).hexdigest()[:32]


def _given(settings: Settings, tokenizer: Tokenizer | None) -> Tokenizer | None:
    """Return the tokenizer that is there before any text was read."""
    builder = named_tokenizer(settings.tokenizer)
    return tokenizer or (builder.build(()) if isinstance(builder, TokenizerFile) else None)


def _plan(looked: list[Survey], settings: Settings, weights: list[float], given: Tokenizer | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "sources": [[one.corpus, weight] for one, weight in zip(looked, weights, strict=True)],
        "tokenizer": settings.tokenizer if given is None else hashlib.sha256(dump(given.to_json(), sort=True)).hexdigest(),
        "division": [list(shares(settings.division.split)), settings.division.by],
        "lossy": settings.lossy,
        "sizes": [part.LIMIT, SHARD],
    }


def _look(source: Source, tell: Progress) -> Survey:
    return survey(source, lambda size: tell(f"reading {source.name}", size, 0))


def vocabulary(sources: Sequence[Source], name: str, *, progress: Progress | None = None) -> Tokenizer:
    """Build a tokenizer from all text of some sources.

    Parameters
    ----------
    sources
        What is read.
    name
        `bpe:SIZE` or `char`.
    progress
        Told what is done.

    Raises
    ------
    DataError
        If the name stands for a tokenizer that is not made of a text.
    """
    builder = named_tokenizer(name)
    if not isinstance(builder, BPE | Characters):
        raise DataError(f"got the tokenizer {name!r}; expected bpe:8192, another size, or char: others are not made of a text")
    tell = progress or (lambda stage, done, total: None)
    return builder.build(_sample(sources, tell, isinstance(builder, BPE)))


def _sample(sources: Sequence[Source], tell: Progress, subwords: bool) -> Iterator[str]:
    total = sum(_look(source, tell).bytes for source in sources) if subwords else 0
    parts = (one.text for source in sources for one in source.parts())
    return _spread(parts, total, tell)


def _spread(texts: Iterable[str], total: int, tell: Progress) -> Iterator[str]:
    """Yield texts, or every so manieth where they are too many to make a vocabulary of."""
    stride, seen = max(1, -(-total // _SAMPLE)), 0
    for number, text in enumerate(texts):
        seen += len(text)
        tell("vocabulary", seen, total)
        if number % stride == 0:
            yield text


class _Work:
    """One call of `prepare`."""

    def __init__(
        self,
        sources: list[Source],
        looked: list[Survey],
        settings: Settings,
        out: Path,
        weights: list[float],
        tokenizer: Tokenizer | None,
        tell: Progress,
    ) -> None:
        self.sources, self.looked, self.settings, self.out, self.tell = sources, looked, settings, out, tell
        self.weights = _weights(weights, looked)
        self.builder, self.given = named_tokenizer(settings.tokenizer), _given(settings, tokenizer)
        self.plan = _plan(looked, settings, self.weights, self.given)

    def same(self, found: Prepared) -> Prepared:
        """Refuse what is there already if it is not what is asked for."""
        self._compare(found.index["plan"])
        return found

    def _compare(self, plan: dict[str, Any]) -> None:
        if plan != self.plan:
            changed = "; ".join(
                f"{path}: {was!r} there, {now!r} here" for path, (was, now) in config.diff(plan, self.plan).items()
            )
            raise DataError(f"{self.out} holds other data ({changed}); give another --out, or delete it")

    def go(self, journal: store.Journal) -> Prepared:
        rows = store.read_journal(self.out / JOURNAL)
        if rows:
            self._compare(rows[0].get("plan", {}))
        else:
            journal.append({"plan": self.plan})
            journal.sync()
        tokenizer = self._tokenizer(journal, rows)
        done = [
            _source(source, look, weight) for source, look, weight in zip(self.sources, self.looked, self.weights, strict=True)
        ]
        for number, entry in enumerate(done):
            shards = [row["shard"] for row in rows if row.get("shard", {}).get("source") == number]
            entry["splits"] = self._encode(number, tokenizer, journal, shards)
        self._refuse_changed(done)
        self._refuse_empty(done)
        stored = (self.out / TOKENIZER).read_bytes()
        index = {
            "format": FORMAT,
            "fingerprint": fingerprint(tokenizer.to_json(), done),
            "name": "+".join(source.name for source in self.sources),
            "tokenizer": {
                "name": self.settings.tokenizer,
                "unit": getattr(tokenizer, "unit", "token"),
                "size": tokenizer.size,
                "end": tokenizer.end,
                "bytes": len(stored),
                "sha256": hashlib.sha256(stored).hexdigest(),
            },
            "dtype": kind(tokenizer.size).str,
            "sources": done,
            "plan": self.plan,
        }
        store.write_json(self.out / INDEX, index)
        return open_prepared(self.out)

    # -- the vocabulary

    def _tokenizer(self, journal: store.Journal, rows: list[dict[str, Any]]) -> Tokenizer:
        kept = next((row["tokenizer"] for row in rows if "tokenizer" in row), "")
        path = self.out / TOKENIZER
        if kept and path.is_file() and store.sha256(path) == kept:
            return load_tokenizer(config.load(path, limit=config.LARGE))
        tokenizer: Tokenizer = self.given or self.builder.build(self._training())
        store.write_json(path, tokenizer.to_json())
        journal.append({"tokenizer": store.sha256(path)})
        journal.sync()
        return tokenizer

    @property
    def _ended(self) -> bool:
        """Whether the tokenizer marks the ends of documents, so that no line's end must."""
        return isinstance(self.builder, BPE) if self.given is None else self.given.end is not None

    def _training(self) -> Iterator[str]:
        """Yield the training text, for subwords an even sample of it."""
        total = sum(look.bytes for look in self.looked) if isinstance(self.builder, BPE) else 0
        places = range(len(self.sources))
        return _spread((one.text for place in places for split, one in self._divided(place) if split == 0), total, self.tell)

    def _divided(self, place: int) -> Iterator[tuple[int, Part]]:
        look = self.looked[place]
        lines = not self._ended and look.documents > 1
        total = look.bytes + (look.unended if lines else 0)
        return divide(joined(self.sources[place].parts(), lines=lines), self.settings.division, total)

    # -- the ids

    def _encode(
        self, place: int, tokenizer: Tokenizer, journal: store.Journal, known: list[dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        dtype = kind(tokenizer.size)
        splits = [_Split(self.out, place, name, dtype, [s for s in known if s["split"] == name], journal) for name in SPLITS]

        def work() -> Iterator[Callable[[], tuple[Block, Encoded | None]]]:
            for block in blocks(self._divided(place), len(SPLITS)):
                yield functools.partial(self._block, block, tokenizer, dtype, skip=block.number < splits[block.split].done)

        total = sum(look.bytes for look in self.looked[: place + 1])
        at = total - self.looked[place].bytes
        for block, encoded in in_order(work()):
            at += sum(len(one.text) for one in block.parts)
            self.tell("encoding", min(at, total), sum(look.bytes for look in self.looked))
            if encoded is not None:
                splits[block.split].add(encoded)
        return {split.name: split.finish() for split in splits}

    def _block(self, block: Block, tokenizer: Tokenizer, dtype: Any, *, skip: bool) -> tuple[Block, Encoded | None]:
        if skip:
            return block, None
        encoded = encode(tokenizer, block.parts, dtype, held_out=block.split > 0, lossy=self.settings.lossy)
        return block, encoded

    def _refuse_changed(self, done: list[dict[str, Any]]) -> None:
        """Refuse a source that was written to between its survey and its encoding."""
        for source, entry in zip(self.sources, done, strict=True):
            found = sum(entry["splits"][name]["bytes"] for name in SPLITS)
            if found != entry["bytes"]:
                raise DataError(
                    f"{source.place} was changed while it was read: {entry['bytes']:,} bytes of text first, then {found:,}; "
                    f"delete {self.out} and prepare it anew"
                )

    def _refuse_empty(self, done: list[dict[str, Any]]) -> None:
        for name, share in zip(SPLITS, shares(self.settings.division.split), strict=True):
            found = sum(source["splits"][name]["tokens"] for source in done)
            if share and not found:
                documents, size = (sum(getattr(look, what) for look in self.looked) for what in ("documents", "bytes"))
                count = f"{documents:,} document{'s' * (documents > 1)}"
                raise DataError(
                    f"the {name} split is empty: {count} of {size:,} bytes is too little for "
                    f"{self.settings.division.split} ({self.settings.division.by}); give more text, other shares or division"
                )


class _Split:
    """Shards of one split of one source, filled block by block."""

    def __init__(
        self, out: Path, place: int, name: str, dtype: np.dtype[Any], known: list[dict[str, Any]], journal: store.Journal
    ) -> None:
        self.out, self.place, self.name, self.dtype, self.journal = out, place, name, dtype, journal
        self.shards = known
        self.done = sum(shard["blocks"] for shard in known)
        self._clear()

    def _clear(self) -> None:
        self.waiting: list[Encoded] = []
        self.size = 0

    def add(self, encoded: Encoded) -> None:
        self.waiting.append(encoded)
        self.size += len(encoded.ids_N)
        if self.size >= SHARD:
            self._write()

    def _write(self) -> None:
        ends, at = [], 0
        for one in self.waiting:
            ends += [at + end for end in one.ends]
            at += len(one.ids_N)
        ids_N = np.concatenate([np.zeros(0, self.dtype), *(one.ids_N for one in self.waiting)])
        entry = write_shard(self.out, f"{self.name}-{self.place}-{len(self.shards):05d}", ids_N, ends)
        counts = {name: sum(one.counts[name] for one in self.waiting) for name in self.waiting[0].counts}
        entry |= {"source": self.place, "split": self.name, "blocks": len(self.waiting), **counts}
        self.journal.append({"shard": entry})
        self.journal.sync()
        self.shards.append(entry)
        self._clear()

    def finish(self) -> dict[str, Any]:
        if self.waiting:
            self._write()
        counted = ("tokens", "documents", "bytes", "characters", "unknown", "lossy")
        plain = ("name", "tokens", "documents", "sha256", "ends_sha256")
        totals = {name: sum(shard[name] for shard in self.shards) for name in counted}
        return totals | {"shards": [{name: shard[name] for name in plain} for shard in self.shards]}


def _weights(weights: list[float], looked: list[Survey]) -> list[float]:
    if not weights:
        weights = [float(look.bytes) for look in looked] if len(looked) > 1 else [1.0]
    if len(weights) != len(looked) or not all(0 < weight < float("inf") for weight in weights):
        raise DataError(f"got the weights {weights} for {len(looked)} sources; expected one above 0 for each")
    return [weight / sum(weights) for weight in weights]


def _source(source: Source, look: Survey, weight: float) -> dict[str, Any]:
    return {"name": source.name, "weight": weight, "files": source.files, **attrs.asdict(look)}
