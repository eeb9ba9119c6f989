"""The table of the terminal."""

import pytest

from craft.report import table


def test_one_run(make, seen):
    text = table(seen(make("a")))
    head, _, names, row, *_ = text.splitlines()
    assert head == "char_1m: 1 run"
    assert names.split() == ["#", "run", "step", "eval/loss", "eval/accuracy", "train/loss", "tok/s", "time", "MB"]
    assert row.split()[:3] == ["1", "char_1m", "40"]
    assert row.split()[-3:] == ["2.02k", "20s", "540"]
    assert "what differs" not in text


def test_seeds_and_what_differs(make, seen):
    text = table(seen(make("a"), make("b", seed=1), make("c", seed=2), make("d", lr=0.04)))
    assert text.startswith("char_1m: 4 runs of 2 configurations; mean ± half the 95 % interval, n seeds\n")
    lines = text.splitlines()
    assert lines[2].split()[:5] == ["#", "run", "n", "step", "eval/loss"]
    assert lines[3].split()[:4] == ["1", "lr=0.02", "3", "40"]
    assert "±" in lines[3]
    assert "*" in lines[4]
    assert "±" not in lines[4]
    [first, values] = text[text.index("what differs") :].splitlines()
    assert (first.split(), values.split()) == (["what", "differs", "1", "2"], ["lr", "0.02", "0.04"])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal(make, seen, width):
    long = "a very long source of text with many words in its name " * 3
    metrics = {f"eval/measure_number_{n}": 1.5 for n in range(9)}
    runs = [make(f"r{n}", lr=0.01 * (n + 1), metrics=metrics, upto=20, **{"data.source": f"{n} {long}"}) for n in range(7)]
    text = table(seen(*runs), width)
    assert max(map(len, text.splitlines())) <= width
    assert "eval/measure_number_8" in text  # shown, or said to have no room
    assert "Note: 7 of 7 runs have not reached their last step" in text
    lines = text.splitlines()
    assert len({line.find("20/40") for line in lines if "20/40" in line}) == 1


def test_of_many_groups_only_the_fields_are_named(make, seen):
    text = table(seen(*(make(f"r{n}", lr=0.01 * (n + 1)) for n in range(9))))
    assert text.splitlines()[-1] == "what differs: lr; --json or --html has the values"
    assert text.count("*") == 2 + 1  # loss, accuracy, training loss


def test_a_metric_that_no_run_has_at_its_end_takes_no_column(make, seen):
    assert "eval" not in table(seen(make("a", upto=2, held=False)))


def test_control_characters_do_not_reach_the_terminal(make, seen):
    text = table(seen(make("a", **{"data.source": "\x1b[31mred\n"}), make("b", **{"data.source": "blue"})))
    assert "\x1b" not in text
    assert "\\x1b[31mred\\n" in text
