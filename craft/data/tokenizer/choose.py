"""Which tokenizer a word stands for, and how a stored one comes back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from craft.data.errors import DataError
from craft.data.tokenizer.characters import Characters, CharacterTokenizer
from craft.data.tokenizer.raw import Bytes, ByteTokenizer
from craft.data.tokenizer.sentence import SentencePieceTokenizer
from craft.data.tokenizer.subword import BPE, SubwordTokenizer

__all__ = ["TokenizerFile", "load_tokenizer", "named_tokenizer"]


@attrs.frozen
class TokenizerFile:
    """A vocabulary that is there already: a tokenizer.json, a tokenizer stored by Craft, or a SentencePiece model."""

    path: str
    """Where it lies."""

    def build(self, texts: Iterable[str]) -> Any:
        """Read it; the text does not matter.

        Raises
        ------
        DataError
            If there is no such file, or it holds no tokenizer.
        """
        path = Path(self.path).expanduser()
        if path.is_dir():
            path = path / "tokenizer.json"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"could not read the tokenizer {path} ({error.strerror}); give a tokenizer.json") from error
        if path.suffix == ".model":
            return SentencePieceTokenizer(content)
        try:
            stored: Mapping[str, Any] = json.loads(content)
        except ValueError as error:
            raise DataError(f"got the tokenizer {path}, which is no JSON ({error}); give a tokenizer.json") from error
        return load_tokenizer(stored)


def named_tokenizer(name: str) -> Characters | Bytes | BPE | TokenizerFile:
    """Return what builds the tokenizer that a word stands for.

    Parameters
    ----------
    name
        `char`, `byte`, `bpe:SIZE` (`bpe:8192`), or the path of a tokenizer.json, of a folder with one, of the
        tokenizer.json of a run, or of a SentencePiece model (`*.model`).

    Raises
    ------
    DataError
        If it is none of these.
    """
    if name in ("char", "byte"):
        return Characters() if name == "char" else Bytes()
    found = re.fullmatch(r"bpe:(\d+)(k?)", name)
    if found:
        return BPE(int(found[1]) * (1024 if found[2] else 1))
    if name.startswith("bpe") or not re.search(r"[./\\]", name):
        raise DataError(f"got the tokenizer {name!r}; expected char, byte, bpe:8192 (or another size), or the path of a file")
    return TokenizerFile(name)


def load_tokenizer(stored: Mapping[str, Any]) -> CharacterTokenizer | ByteTokenizer | SubwordTokenizer | SentencePieceTokenizer:
    """Make the tokenizer of which `to_json` gave the description.

    Parameters
    ----------
    stored
        The description, as it was read from JSON.

    Returns
    -------
    The tokenizer.

    Raises
    ------
    DataError
        If it describes no tokenizer.
    """
    match stored:
        case {"kind": "characters", "characters": str(characters), **rest} if not rest:
            return CharacterTokenizer(characters)
        case {"kind": "bytes", **rest} if not rest:
            return ByteTokenizer()
        case {"kind": "sentencepiece", "model": str(content), **rest} if not rest:
            return SentencePieceTokenizer(base64.b64decode(content))
        case {"model": dict(), "added_tokens": list()}:
            return SubwordTokenizer(json.dumps(stored, ensure_ascii=False))
    expected = 'expected {"kind": "bytes"}, {"kind": "characters", "characters": "..."}, or a tokenizer.json with its model'
    raise DataError(f"got the tokenizer {stored!r:.80}; {expected}")
