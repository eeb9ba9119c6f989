"""What was found in detail is read, or left out where it says nothing of the run as it stands."""

import json

import pytest

from craft.report import judged


def group(loss, weight=1.0, **more):
    return {"loss": loss, "weight": weight, **more}


@pytest.fixture
def detail():
    """Make up a detail of 40 places: the loss falls from 40 to 1; 100 targets in three groups of frequency."""
    return {
        "weight": 100.0,
        "loss": 2.0,
        "accuracy": 0.5,
        "calibration_error": 0.01,
        "positions": [group(40.0 - place) for place in range(40)],
        "frequencies": [group(None, 0.0), group(6.0, 4.0), group(3.0, 8.0), group(1.0, 88.0)],
        "bins": [group(None, 0.0, confidence=None, accuracy=None), group(1.0, 3.0, confidence=0.7, accuracy=0.6)],
    }


@pytest.fixture
def path(tmp_path, detail):
    """Write it as a run's evaluation.json."""
    place = tmp_path / "evaluation.json"
    place.write_text(json.dumps({"validation": {"step": 8, "detail": detail}}), encoding="utf-8")
    return place


def test_means_are_weighted_and_rare_tokens_make_up_a_tenth(path):
    found = judged.read(path, 8)
    assert found is not None
    assert found.early == pytest.approx(sum(range(25, 41)) / 16)
    assert found.late == pytest.approx(sum(range(1, 21)) / 20)
    assert found.rare == pytest.approx((4 * 6.0 + 8 * 3.0) / 12)
    assert (len(found.positions), found.positions[0], found.bins) == (40, 40.0, (judged.Bin(3.0, 0.7, 0.6),))


def test_without_frequencies_nothing_is_rare(path, detail):
    detail["frequencies"] = []
    path.write_text(json.dumps({"validation": {"step": 8, "detail": detail}}), encoding="utf-8")
    found = judged.read(path, 8)
    assert found is not None
    assert found.rare is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"validation": {"step": 8}}', '{"validation": {"step": 8, "detail": {}}}'])
def test_what_is_no_detail_is_left_out(path, text):
    path.write_text(text, encoding="utf-8")
    assert judged.read(path, 8) is None


def test_a_loss_that_is_not_finite_leaves_it_out(path, detail):
    detail["positions"][3]["loss"] = None
    path.write_text(json.dumps({"validation": {"step": 8, "detail": detail}}), encoding="utf-8")
    assert judged.read(path, 8) is None


def test_another_step_and_no_file_say_nothing(path):
    assert judged.read(path, 9) is None
    assert judged.read(path.with_name("none.json"), 8) is None
