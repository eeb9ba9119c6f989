"""Data: sources of text, tokenizers, and batches that are functions of the step."""

from craft.data.errors import DataError as DataError
from craft.data.source import Corpus as Corpus
from craft.data.source import read as read
from craft.data.text import Text as Text
from craft.data.text import TextData as TextData
from craft.data.tokenizer import Bytes as Bytes
from craft.data.tokenizer import ByteTokenizer as ByteTokenizer
from craft.data.tokenizer import Characters as Characters
from craft.data.tokenizer import CharacterTokenizer as CharacterTokenizer
from craft.data.tokenizer import Stream as Stream
from craft.data.tokenizer import UnknownCharacters as UnknownCharacters
from craft.data.tokenizer import load_tokenizer as load_tokenizer
