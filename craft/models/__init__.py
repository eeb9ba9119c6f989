"""Models: whole families built of mixers."""

from craft.models.sequence import Sequence as Sequence
