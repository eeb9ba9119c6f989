"""Tokenizers behind one small protocol: characters, bytes, subwords, SentencePiece."""

from craft.data.tokenizer.characters import Characters as Characters
from craft.data.tokenizer.characters import CharacterTokenizer as CharacterTokenizer
from craft.data.tokenizer.characters import UnknownCharacters as UnknownCharacters
from craft.data.tokenizer.choose import TokenizerFile as TokenizerFile
from craft.data.tokenizer.choose import load_tokenizer as load_tokenizer
from craft.data.tokenizer.choose import named_tokenizer as named_tokenizer
from craft.data.tokenizer.ids import Stream as Stream
from craft.data.tokenizer.raw import Bytes as Bytes
from craft.data.tokenizer.raw import ByteTokenizer as ByteTokenizer
from craft.data.tokenizer.sentence import SentencePieceTokenizer as SentencePieceTokenizer
from craft.data.tokenizer.subword import BPE as BPE
from craft.data.tokenizer.subword import SubwordTokenizer as SubwordTokenizer
