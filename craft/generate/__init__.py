"""Generation from models with memory."""

from craft.generate.decode import decode as decode
from craft.generate.decode import laid_out as laid_out
from craft.generate.decode import one_token as one_token
from craft.generate.filters import Sampling as Sampling
from craft.generate.filters import choose as choose
