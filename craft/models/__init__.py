"""Models: whole families built of mixers."""

from craft.models.preset import gpt2 as gpt2
from craft.models.preset import llama as llama
from craft.models.sequence import Sequence as Sequence
