"""Plain data side by side: differences by path, and a digest that keeps to the content."""

from __future__ import annotations

from craft import config


def test_diff_names_what_differs_by_path() -> None:
    attention = {"kind": "Attention", "heads": 4, "dropout": 0.1}
    a = {"optimizer": {"lr": 1e-3, "beta": 0.9}, "model": {"depth": 2, "pattern": [attention]}}
    b = {"optimizer": {"lr": 1.0, "beta": 0.9}, "model": {"depth": 2, "pattern": []}}
    found = config.diff(a, b)
    assert found["optimizer.lr"] == (1e-3, 1.0)
    assert found["model.pattern"] == (config.ABSENT, [])
    assert found["model.pattern.0.heads"] == (4, config.ABSENT)
    assert len(found) == 5
    assert config.diff({"a": 1}, {"a": True}) == {"a": (1, True)}
    assert config.diff(a, a) == {}


def test_flatten_and_digest() -> None:
    assert config.flatten({"a": {"b": [1, {"c": 2}]}, "d": {}, "e": []}) == {"a.b.0": 1, "a.b.1.c": 2, "d": {}, "e": []}
    assert config.flatten({}) == {}
    assert config.digest({"a": 1, "b": [1.5, None]}) == config.digest({"b": [1.5, None], "a": 1})
    assert config.digest({"a": 1}) != config.digest({"a": 2})
    assert config.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
