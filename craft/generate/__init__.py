"""Generation from models with memory."""

from craft.generate.decode import decode as decode
from craft.generate.filters import Sampling as Sampling
from craft.generate.filters import choose as choose
