"""Losses: (params, batch, ctx) -> (mean, extras)."""

from craft.losses.cross_entropy import COMPARE_LIMIT as COMPARE_LIMIT
from craft.losses.cross_entropy import cross_entropy as cross_entropy
from craft.losses.linear_cross_entropy import CHUNK_BYTES as CHUNK_BYTES
from craft.losses.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from craft.losses.next_token import next_token as next_token
