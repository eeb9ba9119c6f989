"""Configuration files: JSON and TOML alike, and an error that names the file for whatever else comes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import config


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_load_reads_json_and_toml_alike(tmp_path: Path) -> None:
    one = config.load(write(tmp_path, "a.json", '\ufeff{"steps": 3, "optimizer": {"lr": 1e-3}}'))
    two = config.load(write(tmp_path, "a.toml", "steps = 3\r\n[optimizer]\r\nlr = 1e-3\r\n"))
    assert one == two == {"steps": 3, "optimizer": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '{"a": 1,\n "b" 2}', "line 2 column 6"),
        ("a.toml", "a = 1\nb = = 2", "line 2, column 5"),
        ("a.json", '{"a": {"x": 1, "x": 2}}', "the key x stands twice"),
        ("a.toml", "a = 1\na = 2\nb = 3", "line 2"),
        ("a.json", '{"a": NaN}', "NaN"),
        ("a.json", '{"a": 1e999}', "inf at a"),
        ("a.toml", "a = nan", "nan at a"),
        ("a.toml", "a = 2020-01-01", "at a"),
        ("a.json", '{"a": ' + "9" * 10_000 + "}", "a.json: "),
        ("a.json", "[" * 100_000, "levels deep"),
        ("a.json", '{"a":' * 40 + "1" + "}" * 40, "levels deep"),
        ("a.toml", "a = " + "[" * 50_000, "levels deep"),
        ("a.toml", ".".join("a" * 50) + " = 1", "levels deep"),
        ("a.toml", ".".join("a" * 100_000) + " = 1", "dots"),
        ("a.json", b'{"a": "\xff"}', "invalid start byte"),
        ("a.json", '{"a": "' + "x" * (1 << 20) + '"}', "more than 1048576 bytes"),
        ("a.json", "[1]", "expected an object"),
        ("a.json", "", "line 1 column 1"),
        ("a.yaml", "a: 1", "expected a file that ends in .json or .toml"),
    ],
)
def test_a_bad_or_hostile_file_is_a_config_error_that_names_it(tmp_path: Path, name: Any, text: Any, expected: Any) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(config.ConfigError) as error:
        config.load(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"none\.json.*No such file"):
        config.load(tmp_path / "none.json")


@given(st.binary(max_size=40), st.sampled_from(["a.json", "a.toml"]))
def test_any_bytes_give_data_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: Any, name: Any) -> None:
    path = write(tmp_path_factory.mktemp("any"), name, content)
    with contextlib.suppress(config.ConfigError):
        assert isinstance(config.load(path), dict)
