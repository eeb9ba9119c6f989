"""The parts of the page that need no program: tables and samples, with everything that comes from runs escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from craft.report import words
from craft.report.comparison import Comparison, Group
from craft.report.story import Story

__all__ = ["costs", "differences", "finals", "notes", "numbers", "samples", "shared", "swatch"]

COLOURS, DASHES = 7, 5
"""How many colours and dash patterns style.css has: together they tell 35 groups apart."""

_WIDE = 6
"""Groups that stand beside each other in the table of differences; more stand below each other."""


def swatch(index: int) -> str:
    """Return the line that a group is drawn with, as it stands in legends and tables."""
    return (
        f'<svg class="swatch k{index % COLOURS}" viewBox="0 0 28 8" aria-hidden="true">'
        f'<path class="d{index % DASHES}" d="M1 4H27"/></svg>'
    )


def notes(comparison: Comparison) -> str:
    """Return what to beware of."""
    items = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def finals(comparison: Comparison) -> str:
    """Return the table of the last values: one row a group, means with their intervals."""
    groups, repeated = comparison.groups, comparison.repeated
    names = [name for name in comparison.metrics if any(group.final(name) for group in groups)]
    heads = [_head("run"), *([_head("n")] if repeated else []), _head("step")]
    rows = []
    for index, group in enumerate(groups):
        n = [_cell(str(len(group.stories)))] if repeated else []
        rows.append([_name(index, group.label), *n, _cell(group.progress)])
    for name in names:
        pairs = [words.spread(group.final(name)) for group in groups]
        both = any(half for _, half in pairs)
        heads.append(_head(name, 2 if both else 1))
        best = comparison.best(name)
        for index, (mean, half) in enumerate(pairs):
            rows[index].append(_cell(mean, "best" if index in best else "mean" if both else ""))
            rows[index] += [_cell(half, "half")] if both else []
    caption = "Last values, the held-out ones first."
    if repeated:
        caption += " Mean over n seeds, ± half of Student's 95 % interval."
    if any(comparison.best(name) for name in names):
        caption += " Bold: the best mean of a column, without a test of significance."
    return _table(caption, heads, rows)


def costs(comparison: Comparison) -> str:
    """Return the table of what the runs took; columns that no run knows are left out."""
    columns = [
        ("parameters", [words.large(group.mean("parameters")) for group in comparison.groups]),
        ("tokens", [words.large(group.mean("tokens")) for group in comparison.groups]),
        ("FLOPs", [words.large(group.mean("flops")) for group in comparison.groups]),
        ("wall time", [words.time(group.mean("seconds")) for group in comparison.groups]),
        ("tokens/s", [words.rate(group.mean("speed")) for group in comparison.groups]),
        ("peak MB", [words.megabytes(group.mean("memory")) for group in comparison.groups]),
    ]
    columns = [(head, cells) for head, cells in columns if any(cells)]
    rows = []
    for index, group in enumerate(comparison.groups):
        rows.append([_name(index, group.label), *(_cell(cells[index]) for _, cells in columns), _places(group)])
    heads = [_head("run"), *(_head(head) for head, _ in columns), '<th scope="col" class="text">directory</th>']
    caption = "What the runs took: wall time of all starts with evaluations; the median of the speed, the peak of the memory."
    return _table(caption + (" Means over the seeds." if comparison.repeated else ""), heads, rows)


def numbers(caption: str, heads: Sequence[str], rows: Iterable[tuple[int, str, Sequence[str]]]) -> str:
    """Return a table of numbers: of each group its number, label and cells."""
    cells = [[_name(index, label), *map(_cell, texts)] for index, label, texts in rows]
    return _table(caption, [_head("run"), *map(_head, heads)], cells)


def differences(comparison: Comparison) -> str:
    """Return the table of the fields that differ."""
    fields, groups = comparison.differences, comparison.groups
    if not fields:
        return ""
    caption = "The fields of the configuration that differ; all others are equal."
    if len(groups) <= _WIDE:
        names = [
            f'<th scope="col" class="text">{swatch(index)} {escape(group.label)}</th>' for index, group in enumerate(groups)
        ]
        rows = [[_row_head(path), *(_value(value) for value in values)] for path, values in fields.items()]
        return _table(caption, ['<th scope="col" class="text">field</th>', *names], rows)
    rows = [
        [_name(index, group.label), *(_value(values[index]) for values in fields.values())]
        for index, group in enumerate(groups)
    ]
    return _table(caption, [_head("run"), *(f'<th scope="col" class="text">{escape(path)}</th>' for path in fields)], rows)


def shared(comparison: Comparison) -> str:
    """Return the fields that are the same in all runs, folded up where there is something to compare."""
    rows = [[_row_head(path), _value(value)] for path, value in comparison.shared.items()]
    alone = len(comparison.stories) == 1
    summary = f"The configuration: {len(rows)} fields" if alone else f"What all runs share: {len(rows)} fields"
    return f"<details><summary>{summary}</summary>{_table('', [], rows)}</details>"


def samples(comparison: Comparison) -> str:
    """Return the newest sample of each group's first run side by side; those of its other seeds are folded up."""
    first, others = [], []
    for index, group in enumerate(comparison.groups):
        written = [pair for pair in zip(group.names, group.stories, strict=True) if pair[1].samples]
        first += [_card(index, *pair) for pair in written[:1]]
        others += [_card(index, *pair) for pair in written[1:]]
    shown = f'<div class="cards">{"".join(first)}</div>' if first else ""
    if others:
        shown += f'<details><summary>{len(others)} of other seeds</summary><div class="cards">{"".join(others)}</div></details>'
    return shown


def _card(index: int, name: str, story: Story) -> str:
    *earlier, newest = story.samples
    shown = _text(newest.step, newest.prompt, newest.text)
    if earlier:
        inside = "".join(_text(sample.step, sample.prompt, sample.text) for sample in reversed(earlier[-20:]))
        shown += f"<details><summary>{len(earlier)} earlier</summary>{inside}</details>"
    return f'<figure class="card"><figcaption>{swatch(index)} {escape(name)}</figcaption>{shown}</figure>'


def _text(step: int, prompt: str, text: str) -> str:
    said = f"step {step}, after {escape(repr(prompt))}"
    return f'<p class="when">{said}</p><pre tabindex="0"><code>{escape(text)}</code></pre>'


def _places(group: Group) -> str:
    return f'<td class="text">{"<br>".join(f"<code>{escape(str(story.directory))}</code>" for story in group.stories)}</td>'


def _name(index: int, label: str) -> str:
    return f'<th scope="row">{swatch(index)} {escape(label)}</th>'


def _row_head(text: str) -> str:
    return f'<th scope="row"><code>{escape(text)}</code></th>'


def _head(text: str, span: int = 1) -> str:
    place = ' class="text"' if text == "run" else f' colspan="{span}"' if span > 1 else ""
    return f'<th scope="col"{place}>{escape(text)}</th>'


def _cell(text: str, kind: str = "") -> str:
    return f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</td>"


def _value(value: object) -> str:
    return f'<td class="text"><code>{escape(words.setting(value))}</code></td>'


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<thead><tr>{''.join(heads)}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll" tabindex="0"><table>{said}{head}<tbody>{body}</tbody></table></div>'
