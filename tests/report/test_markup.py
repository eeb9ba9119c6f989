"""The parts of the page that need no program."""

import re

import pytest

from craft.report import markup

EVIL = '</script><img src=x onerror="alert(1)">&amp;'


def rows(html):
    """Return the cells of each row of a table, without their marks."""
    return [
        [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", html)
    ]


def test_finals_of_seeds(make, seen):
    html = markup.finals(seen(make("a"), make("b", seed=1), make("c", lr=0.04)))
    head, one, two = rows(html)
    assert [word.rpartition(">")[2] for word in head] == ["run", "n", "step", "eval/loss", "eval/accuracy", "train/loss"]
    assert [word.rpartition(">")[2] for word in one[:3]] == ["lr=0.02", "2", "40"]
    assert one[4].rpartition(">")[2].startswith("±")
    assert len(one) == len(two) == 9
    assert html.count('class="best"') == 3
    assert "without a test of significance" in html


def test_finals_of_one_run_mark_nothing(make, seen):
    html = markup.finals(seen(make("a")))
    assert "best" not in html
    assert "±" not in html
    assert "colspan" not in html


def test_costs_leave_out_what_no_run_knows(make, seen):
    html = markup.costs(seen(make("a"), make("b", lr=0.04)))
    assert "FLOPs" not in html
    assert "tokens/s" in html
    full = markup.costs(seen(make("c", model={"parameters": 1_000_000, "flops_per_step": 1e12})))
    assert rows(full)[1][1:6] == ["1M", "4k", "4e+13", "20s", "2.02k"]


def test_differences_lie_as_they_fit(make, seen):
    few = markup.differences(seen(make("a"), make("b", lr=0.04)))
    assert rows(few)[1] == ["lr", "0.02", "0.04"]
    many = markup.differences(seen(*(make(f"m{n}", lr=n) for n in range(7))))
    assert rows(many)[3][-1] == "2"
    assert markup.differences(seen(make("c"))) == ""


def test_what_is_shared(make, seen):
    assert "The configuration:" in markup.shared(seen(make("a")))
    html = markup.shared(seen(make("b"), make("c", lr=0.04)))
    assert "What all runs share:" in html
    assert "<code>lr</code>" not in html


def test_samples_side_by_side_and_earlier_ones_folded(make, seen):
    html = markup.samples(seen(make("a", samples=("one", "two", "three")), make("b", lr=0.04, samples=())))
    assert html.count("<figure") == 1
    assert html.index("three") < html.index("2 earlier") < html.index("two") < html.index("one")
    assert markup.samples(seen(make("c", samples=()))) == ""
    seeds = markup.samples(seen(make("d"), make("e", seed=1)))
    assert seeds.index("seed=0") < seeds.index("1 of other seeds") < seeds.index("seed=1")


@pytest.mark.parametrize("part", ["finals", "costs", "differences", "shared", "samples", "notes"])
def test_nothing_that_a_run_says_is_markup(make, seen, part):
    one = make(f"a{EVIL.replace('/', '')}", samples=(EVIL,), metrics={f"eval/{EVIL}": 1.0}, **{"data.source": EVIL})
    found = seen(one, make("b", fingerprint="<b>", **{"data.source": "x"}))
    html = getattr(markup, part)(found)
    assert html
    assert "<img" not in html
    assert "</script" not in html
    assert "<b>" not in html
    ours = "div table caption thead tbody tr th td svg path code pre details summary figure figcaption p ul li br"
    assert set(re.findall(r"<([a-z]+)", html)) <= {*ours.split()}
