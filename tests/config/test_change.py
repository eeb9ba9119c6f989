"""Values changed by their paths."""

import pytest

from craft import config

DATA = {"lr": 0.1, "model": {"width": 8, "pattern": [{"heads": 2}, {"expand": 4.0}]}, "empty": {}}


def test_values_are_changed_and_the_original_is_not():
    found = config.change(DATA, {"lr": 0.2, "model.pattern.0.heads": 4})
    assert (found["lr"], found["model"]["pattern"][0]["heads"]) == (0.2, 4)
    assert DATA["lr"] == 0.1
    assert config.diff(found, DATA).keys() == {"lr", "model.pattern.0.heads"}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("lrr", "did you mean lr"),
        ("width", "did you mean model.width"),
        ("model.pattern.7.heads", "did you mean model.pattern.0.heads"),
        ("model.pattern.x.heads", "model.pattern.0.heads"),
        ("lr.deep", "there are lr"),
        ("", "there are lr, model.width"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(path, hint):
    with pytest.raises(config.ConfigError, match="there is no") as error:
        config.change(DATA, {path: 1})
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3), ("true", True), ("null", None), ("abc", "abc"), ("0.9,0.1", "0.9,0.1"), ("[1,2]", [1, 2])],
)
def test_words_become_values(text, value):
    assert config.parse_value(text) == value
    assert type(config.parse_value(text)) is type(value)
