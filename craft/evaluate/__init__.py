"""Evaluation on held-out data."""

from craft.evaluate.next_token import next_token_evaluation as next_token_evaluation
from craft.evaluate.whole import measure as measure
