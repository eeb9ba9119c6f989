"""What differs, and names that say it."""

from pathlib import Path

from craft.report import differ


def rows(*changes):
    base = {"experiment": "a", "lr": 0.1, "model.depth": 2, "optimizer.decay": 0.1, "schedule.decay": 0.0, "code": "x"}
    return [{**base, **change} for change in changes]


def names(*changes):
    found = rows(*changes)
    return differ.labels(found, [f"run{index}" for index in range(len(found))])


def test_fields_of_a_run(make):
    from craft import config

    data = config.load(make("run") / "config.json")
    found = differ.fields(data)
    assert list(found)[:3] == ["experiment", "lr", "steps"]
    assert found["model.pattern.0.heads"] == 2
    assert found["run.precision"] == "fp32"
    assert found["data.source"] == "stdlib"
    assert found["data.fingerprint"] == "f00d"
    assert not [path for path in found if path.startswith(("run.out", "run.track"))]
    assert differ.fields({"experiment": {}, "steps": 3})["steps"] == 3


def test_only_what_differs_varies_in_the_order_of_the_configuration():
    assert differ.varying(rows({}, {"model.depth": 3, "lr": 1}, {"more": 1})) == ["lr", "model.depth", "more"]
    assert differ.varying(rows({}, {})) == []
    assert differ.varying(rows({"lr": 1}, {"lr": True})) == ["lr"]


def test_what_several_runs_share_names_them_before_what_follows_from_it():
    found = rows(
        {"steps": 10, "model.tied": False, "data.tokenizer": "char"},
        {"steps": 20, "model.tied": True, "data.tokenizer": "bpe:1024"},
        {"steps": 30, "model.tied": False, "data.tokenizer": "char", "model.depth": 4, "model.width": 9},
        {"steps": 40, "model.tied": True, "data.tokenizer": "bpe:1024", "model.depth": 4, "model.width": 9},
    )
    assert differ.labels(found, list("abcd"))[1:3] == ["depth=2, tokenizer=bpe:1024", "depth=4, tokenizer=char, width=9"]


def test_prepared_data_has_its_own_tokenizer(make):
    from craft import config

    data = config.load(make("run", **{"data.tokenizer": "char"}) / "config.json")
    assert differ.fields(data)["data.tokenizer"] == "char"
    data["data"]["tokenizer"] = "bpe:512"
    assert differ.fields(data)["data.tokenizer"] == "bpe:512"


def test_names_say_what_differs():
    assert names({}, {"lr": 0.2}) == ["lr=0.1", "lr=0.2"]
    assert names({}, {"model.depth": 3}) == ["depth=2", "depth=3"]
    assert names({}, {"schedule.decay": 1.0}) == ["decay=0.0", "decay=1.0"]
    assert names({}, {"schedule.decay": 1.0, "optimizer.decay": 0.2})[1] == "optimizer.decay=0.2, schedule.decay=1.0"
    assert names({}, {"experiment": "b"}) == ["experiment=a", "experiment=b"]


def test_the_code_names_a_run_only_where_nothing_else_does():
    assert names({}, {"code": "y"}) == ["code=x", "code=y"]
    assert names({}, {"code": "y", "lr": 0.2}) == ["lr=0.1", "lr=0.2"]


def test_a_name_is_short_and_tells_the_runs_apart():
    many = {f"field{n}": n for n in range(9)}
    one, two = names({}, many)
    assert two.count("=") == 3
    assert one == "a"
    assert names({}, {}) == ["a (run0)", "a (run1)"]
    assert names({}) == ["a"]


def test_a_position_does_not_stand_for_a_field():
    assert differ._short(["model.pattern.0.kind", "model.pattern.1.kind"]) == {
        "model.pattern.0.kind": "pattern.0.kind", "model.pattern.1.kind": "pattern.1.kind"
    }  # fmt: skip


def test_ends_of_paths():
    assert differ.tails([Path("/a/x/run"), Path("/a/y/run")]) == ["x/run", "y/run"]
    assert differ.tails([Path("/a/x")]) == ["x"]
