"""Data: sources of text, tokenizers, token shards, and batches that are functions of the step."""

from craft.data.division import Division as Division
from craft.data.errors import DataError as DataError
from craft.data.formats import Reading as Reading
from craft.data.index import Prepared as Prepared
from craft.data.index import open_prepared as open_prepared
from craft.data.meter import Meter as Meter
from craft.data.prefetch import Prefetch as Prefetch
from craft.data.preparation import Settings as Settings
from craft.data.preparation import prepare as prepare
from craft.data.source import Source as Source
from craft.data.source import find as find
from craft.data.text import Text as Text
from craft.data.text import TextData as TextData
from craft.data.tokenizer import BPE as BPE
from craft.data.tokenizer import Bytes as Bytes
from craft.data.tokenizer import ByteTokenizer as ByteTokenizer
from craft.data.tokenizer import Characters as Characters
from craft.data.tokenizer import CharacterTokenizer as CharacterTokenizer
from craft.data.tokenizer import SentencePieceTokenizer as SentencePieceTokenizer
from craft.data.tokenizer import Stream as Stream
from craft.data.tokenizer import SubwordTokenizer as SubwordTokenizer
from craft.data.tokenizer import TokenizerFile as TokenizerFile
from craft.data.tokenizer import UnknownCharacters as UnknownCharacters
from craft.data.tokenizer import load_tokenizer as load_tokenizer
from craft.data.tokenizer import named_tokenizer as named_tokenizer
