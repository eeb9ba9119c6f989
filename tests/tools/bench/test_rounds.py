from typing import Any

from tools.bench.cases import CASES
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun
from tools.bench.rounds import begin, estimate, free, turns


class Fake:
    def __init__(self, log, name, fails=()):
        self.log, self.name, self.fails, self.asked = log, name, fails, 0

    def ask(self, command):
        self.log.append((self.name, command))
        self.asked += 1
        if self.asked in self.fails:
            raise NotRun("it died")
        return {"seconds": 1.0}


def test_turns_go_round_and_who_falls_out_is_named():
    log: list[Any] = []
    kept: list[Any] = []
    workers: dict[str, Any] = {"a": Fake(log, "a"), "b": Fake(log, "b", fails={2})}
    lost = turns(workers, 3, {"a": 5, "b": 7}, lambda name, number, answer: kept.append((name, number)))
    assert lost == {"b": "it died"}
    assert log[:4] == [("a", "steps 5"), ("b", "steps 7"), ("b", "steps 7"), ("a", "steps 5")]
    assert kept == [("a", 0), ("b", 0), ("a", 1), ("a", 2)]


def test_who_cannot_start_is_named(session, tiny):
    not_run: dict[str, str] = {}
    assert begin(session, [Contestant("craft", "sideways")], tiny, not_run) == {}
    assert "craft sideways fp32" in not_run


def test_larger_models_are_expected_to_take_more():
    assert estimate(CASES["100m"]) > 2 * estimate(CASES["1m"]) > 0
    assert free() > 0
