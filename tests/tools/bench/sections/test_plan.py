import pytest

from tools.bench.pool import NotRun
from tools.bench.sections.plan import prediction


def test_the_last_line_is_the_prediction():
    said = 'planning\n{"memory_mb": 12, "first_start_memory_mb": 14, "seconds_per_step": 0.5, "more": 1}\n'
    assert prediction(said) == {"memory_mb": 12.0, "first_start_memory_mb": 14.0, "seconds_per_step": 0.5}


@pytest.mark.parametrize("said", ["", "no JSON", '{"memory_mb": 1}', "[1]"])
def test_anything_else_is_not_run(said):
    with pytest.raises(NotRun, match="memory_mb"):
        prediction(said)
