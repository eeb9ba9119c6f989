"""The part of the page that shows where runs lose."""

import json
import math
import re

import pytest

from craft import config
from craft.report.page import page


@pytest.fixture
def judge():
    """Write what `craft evaluate --detail` would of a run that `make` made."""

    def write(run, scale=1.0, size=None):
        places = [{"loss": scale * (2 + 2 / place), "weight": 10.0} for place in range(1, 65)]
        bins = [{"weight": 64.0, "confidence": part / 10, "accuracy": part / 12} for part in range(1, 11)]
        means = {"weight": 640.0, "loss": 2.2 * scale, "accuracy": 0.4, "calibration_error": 0.05}
        detail = {**means, "positions": places, "frequencies": [], "bins": bins}
        (run / "evaluation.json").write_text(json.dumps({"validation": {"step": 40, "detail": detail}}), encoding="utf-8")
        if size:
            data = config.load(run / "config.json")
            data["data"] |= {"bytes": {"validation": size}, "tokens": {"validation": 100}}
            (run / "config.json").write_text(json.dumps(data), encoding="utf-8")
        return run

    return write


def test_nothing_is_shown_of_runs_that_were_not_judged(make, seen):
    assert "Where it loses" not in page(seen(make("a")))


def test_one_run_is_shown(make, seen, judge):
    text = page(seen(judge(make("a"))))
    assert "<h2>Where it loses</h2>" in text
    assert "Loss over the place in a sample, nats a token" in text
    assert len(re.findall(r'class="curve held k0', text)) == 2
    [row] = re.findall(r"<th>.*?calibration error.*?</table>|calibration error</th></tr></thead><tbody>(.*?)</tbody>", text)
    assert [float(cell) for cell in re.findall(r"<td>([\d.]+)</td>", row)][-2:] == [0.4, 0.05]


def test_runs_of_other_tokens_are_shown_in_bits_a_byte(make, seen, judge):
    runs = [judge(make("a"), size=100), judge(make("b", lr=0.04), scale=2.0, size=200), make("c", lr=0.01)]
    data = config.load(runs[2] / "config.json")
    data["data"] |= {"bytes": {"validation": 300}, "tokens": {"validation": 100}}
    (runs[2] / "config.json").write_text(json.dumps(data), encoding="utf-8")
    text = page(seen(*runs))
    assert "Where they lose" in text
    assert "Loss over the place in a sample, bits a byte" in text
    one, other = re.findall(r'class="curve held k[01] d[01]" d="([^"]+)"', text)[:2]
    assert one == other  # twice the nats on twice the bytes
    highest = 4 / math.log(2)
    assert f'text-anchor="end">{highest:.2f}</text>' in text
    assert len(re.findall(r'class="curve held k2', text)) == 0


def test_seeds_are_averaged(make, seen, judge):
    text = page(seen(judge(make("a")), judge(make("b", seed=1), scale=3.0)))
    assert f'text-anchor="end">{(4 + 12) / 2:.2f}</text>' in text
