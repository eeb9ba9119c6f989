"""The short help teaches; the long one names everything."""

import attrs

from craft.cli.short import documentation, flags
from craft.run import Run
from experiments.char_1m import Char1M


def test_help_fits_two_screens_and_teaches(craft):
    code, out, _ = craft("train", "char_1m", "--help")
    assert code == 0
    assert sum(max(1, -(-len(line) // 80)) for line in out.splitlines()) <= 54  # a terminal breaks what is longer
    for flag in (
        "--lr",
        "--steps",
        "--batch",
        "--context",
        "--seed",
        "--out",
        "--resume",
        "--device",
        "--precision",
        "--compile",
    ):
        assert f" {flag} " in out
    assert "Character model of about a million parameters" in out
    assert "Run: python -m experiments.char_1m" in out
    assert "--help-all" in out
    assert f"Updates in the whole run. (default: {Char1M().steps})" in out


def test_help_all_names_every_field(craft):
    code, out, _ = craft("train", "char_1m", "--help-all")
    assert code == 0
    for name, (kind, default, _) in {**flags(Char1M()), **flags(Run())}.items():
        path, _, last = name.rpartition(".")
        flag = f"no-{last}" if kind is bool and default else last  # what is on is turned off
        assert f"--{'.'.join(part for part in (path, flag) if part)}".replace("_", "-") in out, name


def test_help_shows_the_values_of_a_preset(craft):
    assert "Updates in the whole run. (default: 2)" in craft("train", "char_1m", "--preset", "smoke", "--help").out


@attrs.frozen
class Inner:
    """A part."""

    size: int = 3
    """Size of it,
    in lines."""
    bare: int = 0


@attrs.frozen
class Outer:
    """A whole."""

    first: Inner = Inner()
    """A part."""
    several: tuple[Inner, ...] = (Inner(1), Inner(2))
    """Parts."""


def test_docstrings_of_fields_are_found():
    assert documentation(Inner) == {"size": "Size of it, in lines."}


def test_a_child_has_the_docstrings_of_its_parents():
    @attrs.frozen
    class Child(Inner):
        """A part of a part."""

        more: int = 1
        """More of it."""

    assert documentation(Child) == {"size": "Size of it, in lines.", "more": "More of it."}


def test_flags_are_paths():
    assert flags(Outer()) == {
        "first.size": (int, 3, "Size of it, in lines."),
        "first.bare": (int, 0, ""),
        "several.0.size": (int, 1, "Size of it, in lines."),
        "several.0.bare": (int, 0, ""),
        "several.1.size": (int, 2, "Size of it, in lines."),
        "several.1.bare": (int, 0, ""),
    }
