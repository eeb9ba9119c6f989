"""The object for machines."""

import json

from craft.report import facts


def test_everything_is_there_and_strict(make, seen):
    nan = float("nan")
    found = seen(make("a"), make("b", seed=1), make("c", lr=0.04, more=1, metrics={"eval/odd": nan}))
    data = json.loads(json.dumps(facts(found), allow_nan=False))
    one, two = data["groups"]
    assert (data["title"], data["judge_by"], data["comparable_per_token"]) == ("char_1m", "eval/loss", True)
    assert data["differences"] == {"lr": [0.02, 0.04], "more": [None, 1]}
    assert set(one["metrics"]["eval/loss"]) == {"mean", "half", "n"}
    assert one["metrics"]["eval/loss"]["n"] == 2
    assert two["metrics"]["eval/odd"] == {"mean": None, "half": None, "n": 1}
    run = one["runs"][0]
    assert (run["step"], run["finished"], run["tokens_per_second"], run["memory_mb"]) == (40, True, 2021.0, 540.0)
    assert run["directory"].endswith("/a")
    assert run["final"]["train/lr"] == 0.012
