"""The commands that make and show data: `craft data` and `craft tokenizer`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import attrs
import tyro

from craft import data, store
from craft.cli.flags import parse_flags
from craft.data.division import SPLITS
from craft.data.preparation import vocabulary
from craft.errors import UsageError

__all__ = ["data_command", "tokenizer_command"]


@attrs.frozen
class Prepare:
    """Turn text into token shards that training reads: `craft train NAME --data.source DIR`.

    A run that was broken off goes on where it was; the same text gives the same fingerprint. Several sources become a
    mixture.
    """

    source: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files or folders of text, JSON lines or Parquet (.gz and .zst too), `hf:DATASET`, stdlib, python, shakespeare, or `-`
    for standard input."""
    out: Path | None = None
    """Directory of the result; none: data/NAME."""
    tokenizer: str = "char"
    """char, byte, bpe:8192 (or another size), or the path of a tokenizer.json or SentencePiece model."""
    split: str = "0.9,0.05,0.05"
    """Shares of training, validation and test."""
    division: Literal["contiguous", "hash"] = "contiguous"
    """One stretch after the other, or each document by its hash."""
    weights: str = ""
    """Share of the training samples of each source, such as 0.7,0.3; none: by their size."""
    field: str = "text"
    """Field of JSON lines, or column of a table, that holds the text."""
    separator: str = ""
    """Line between two documents of a text file; none: a file is a document."""
    skip_bad: bool = False
    """Leave out broken lines of JSON and rows without text, and count them."""
    allow_lossy: bool = False
    """Allow a tokenizer that does not give back every text as it was."""
    debug: bool = False
    """Show the whole traceback of an error."""


@attrs.frozen
class Info:
    """Show what was prepared."""

    directory: Annotated[Path, tyro.conf.Positional]
    """The directory that `craft data prepare` made."""
    verify: bool = False
    """Read everything and compare it with the hashes."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show the whole traceback of an error."""


@attrs.frozen
class TrainTokenizer:
    """Train a subword vocabulary on a text (all of it: to keep a held-out text out, train it by `craft data prepare`)."""

    source: Annotated[tuple[str, ...], tyro.conf.Positional]
    """What is read, as for `craft data prepare`."""
    tokenizer: str = "bpe:8192"
    """bpe:SIZE, or char."""
    out: Path = Path("tokenizer.json")
    """The file."""
    field: str = "text"
    """Field of JSON lines, or column of a table, that holds the text."""
    debug: bool = False
    """Show the whole traceback of an error."""


@attrs.frozen
class ShowTokenizer:
    """Show how a tokenizer cuts a text."""

    tokenizer: Annotated[str, tyro.conf.Positional]
    """Path of a tokenizer.json, of a SentencePiece model, of a run or of prepared data; or byte."""
    text: str = "The quick brown fox — naïve, 東京, def f(x):\n    return x"
    """The text; `-` reads it from standard input."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show the whole traceback of an error."""


def data_command(argv: Sequence[str]) -> int:
    """Run `craft data`."""
    return _choose("data", argv, {"prepare": _prepare, "info": _info})


def tokenizer_command(argv: Sequence[str]) -> int:
    """Run `craft tokenizer`."""
    return _choose("tokenizer", argv, {"train": _train, "show": _show})


def _choose(name: str, argv: Sequence[str], commands: dict[str, Callable[[Sequence[str]], int]]) -> int:
    word, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if word in ("--help", "-h"):
        lines = "".join(f"  craft {name} {command} --help\n" for command in commands)
        sys.stdout.write(f"usage: craft {name} {{{','.join(commands)}}} ...\n\n{lines}")
        return 0
    if word not in commands:
        raise UsageError(f"got craft {name} {word!r}; expected {' or '.join(commands)}")
    return commands[word](rest)


def _prepare(argv: Sequence[str]) -> int:
    args: Prepare = parse_flags(Prepare, argv, "craft data prepare")
    settings = data.Settings(args.tokenizer, data.Division(args.split, args.division), args.allow_lossy)
    weights = _numbers(args.weights)
    with tempfile.TemporaryDirectory() as folder:
        sources = [_source(word, args.field, args.separator, args.skip_bad, Path(folder)) for word in args.source]
        out = args.out or Path("data") / "+".join(source.name.replace("/", "-") for source in sources)
        with data.Meter() as meter:
            made = data.prepare(sources, settings, out, weights=weights, progress=meter)
    _print(made, as_json=False)
    name = "subword_1m" if made.index["tokenizer"]["unit"] == "token" else "char_1m"
    sys.stdout.write(f"\nTrain on it with\n  craft train {name} --data.source {out}\n")
    return 0


def _source(word: str, field: str, separator: str, skip_bad: bool, folder: Path) -> data.Source:
    reading = data.Reading(field, separator, skip_bad)
    if word != "-":
        return data.find(word, reading)
    spool = folder / "stdin"  # it is read three times
    with spool.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return data.find(str(spool), reading)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")] if text else []
    except ValueError as error:
        raise UsageError(f"got --weights {text}; expected numbers such as 0.7,0.3, one for each source") from error


def _info(argv: Sequence[str]) -> int:
    args: Info = parse_flags(Info, argv, "craft data info")
    found = data.open_prepared(args.directory)
    if args.verify:
        found.verify(always=True)
    _print(found, as_json=args.json)
    if args.verify and not args.json:
        sys.stdout.write("every file is what the index says\n")
    return 0


def _print(found: data.Prepared, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"directory": str(found.directory), **found.index}) + "\n")
        return
    told = found.index["tokenizer"]
    sys.stdout.write(f"{found.directory}\n")
    sys.stdout.write(
        f"  tokenizer    {told['name']}, {told['size']:,} different {told['unit']}s, {found.index['dtype'][1:]} on the disk\n"
    )
    for source in found.index["sources"]:
        skipped = f", {source['skipped']:,} broken rows left out" if source["skipped"] else ""
        share = f", {100 * source['weight']:.3g} % of the samples" if len(found.weights) > 1 else ""
        sys.stdout.write(
            f"  source       {source['name']}: {source['documents']:,} documents, {source['bytes']:,} bytes{share}{skipped}\n"
        )
    sys.stdout.write(f"  fingerprint  {found.fingerprint[:32]}\n\n")
    sys.stdout.write(f"  {'split':<12}{'tokens':>16}{'documents':>12}{'bytes':>16}{'bytes/token':>13}\n")
    for split in SPLITS:
        tokens, documents, size = (found.total(split, what) for what in ("tokens", "documents", "bytes"))
        each = f"{size / tokens:.3f}" if tokens else "-"
        sys.stdout.write(f"  {split:<12}{tokens:>16,}{documents:>12,}{size:>16,}{each:>13}\n")
    for what, text in (
        ("unknown", "characters are unknown to the vocabulary"),
        ("lossy", "parts do not come back as they were"),
    ):
        for split in SPLITS:
            if count := found.total(split, what):
                sys.stdout.write(f"  {count:,} {text} ({split})\n")


def _train(argv: Sequence[str]) -> int:
    args: TrainTokenizer = parse_flags(TrainTokenizer, argv, "craft tokenizer train")
    if args.out.exists():
        raise UsageError(f"got --out {args.out}, which is there already; choose another, or delete it")
    sources = [data.find(word, data.Reading(args.field)) for word in args.source]
    with data.Meter() as meter:
        tokenizer = vocabulary(sources, args.tokenizer, progress=meter)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(args.out, tokenizer.to_json())
    sys.stdout.write(f"{args.out}: {tokenizer.size:,} tokens\n  craft tokenizer show {args.out}\n")
    return 0


def _show(argv: Sequence[str]) -> int:
    args: ShowTokenizer = parse_flags(ShowTokenizer, argv, "craft tokenizer show")
    tokenizer = data.named_tokenizer(args.tokenizer).build(()) if args.tokenizer != "char" else None
    if tokenizer is None:
        raise UsageError("got the tokenizer char, whose characters are those of a text; name a run or prepared data")
    text = sys.stdin.read() if args.text == "-" else args.text
    ids = tokenizer.encode(text).tolist()
    back, size = tokenizer.decode(ids), len(text.encode())
    if args.json:
        said = {"size": tokenizer.size, "ids": ids, "tokens": [tokenizer.decode([i]) for i in ids], "exact": back == text}
        sys.stdout.write(json.dumps(said) + "\n")
        return 0
    sys.stdout.write(
        f"{tokenizer.size:,} tokens; the text has {size} bytes and takes {len(ids)}: {size / max(1, len(ids)):.2f} bytes each\n"
    )
    sys.stdout.write(" ".join(f"{tokenizer.decode([i])!r}" for i in ids) + "\n")
    sys.stdout.write("it comes back as it was\n" if back == text else f"it comes back as {back!r}\n")
    return 0
