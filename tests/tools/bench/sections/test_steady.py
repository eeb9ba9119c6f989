"""The steady section with real workers on a tiny case."""

from tools.bench.contestants import Contestant
from tools.bench.sections.steady import measure


def test_a_case_is_measured_in_turns(session, tiny):
    those = [Contestant("craft", "none"), Contestant("plain", "eager"), Contestant("craft", "sideways")]
    found = measure(session, tiny, those, options={"sizes": [64]})
    assert set(found["contestants"]) == {"craft none fp32", "plain eager fp32"}
    assert list(found["not_run"]) == ["craft sideways fp32"]
    plain = found["contestants"]["plain eager fp32"]
    assert len(plain["ms"]) == len(plain["peak"]) == session.rounds
    assert min(plain["ms"]) > 0
    assert min(plain["peak"]) > 0
    assert plain["peak_mb"] > 50
    assert plain["parameters"] == tiny.parameters == found["parameters"]
