"""Evaluation on held-out data, on questions, and by the tasks of others."""

from craft.evaluate.answers import answer_questions as answer_questions
from craft.evaluate.detail import detail as detail
from craft.evaluate.detail import frequencies as frequencies
from craft.evaluate.harness import harness as harness
from craft.evaluate.harness import require_harness as require_harness
from craft.evaluate.next_token import next_token_evaluation as next_token_evaluation
from craft.evaluate.questions import read_questions as read_questions
from craft.evaluate.whole import measure as measure
from craft.evaluate.whole import measure_each as measure_each
