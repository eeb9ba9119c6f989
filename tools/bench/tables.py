"""Tables in Markdown, one for each section."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tools.bench.bars import against, bars, shares
from tools.bench.sections.plan import NAMES
from tools.bench.sections.steady import ANCHORS

__all__ = ["page", "table"]

Results = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; bars and line breaks inside a cell do not break it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def page(results: Results) -> str:
    """Write everything: the bars first, then the machine, then the sections that were run."""
    parts = ["# Craft beside its peers\n"]
    held = {True: "yes", False: "NO", None: "-"}
    rows = [(bar.name, bar.measured, held[bar.held]) for bar in bars(results)]
    parts += ["## Bars\n", table(("bar", "measured", "held"), rows)]
    machine = results.get("machine", {})
    parts += ["## Machine\n", table(("what", "value"), list(machine.items()))]
    made = [
        (name, one["at"], ", ".join(one["commits"]), "; ".join(one["how"])) for name, one in results.get("made", {}).items()
    ]
    parts += [table(("section", "measured at", "commits", "how"), made)] if made else []
    for name, write in _WRITERS.items():
        if results.get(name):
            parts += [f"## {name.capitalize()}\n", write(results[name])]
    return "\n".join(parts)


def _steady(found: Results) -> str:
    return "\n".join(f"### {name}\n\n{_case(case)}" for name, case in found.items() if "contestants" in case)


_NOTE = """\
Times and shares are medians over the rounds; `times Craft's step` is the median, `least` the smallest of the ratios within a
round to Craft's compiled step (bf16, same model). `+alloc` rows have Craft's allocator settings. The peak is that of the
process from the built model on, its compiler included where it had to compile; `idle CPU` is what it used while others had
their turn.
"""


def _case(case: Results) -> str:
    head = ["contestant", "ms/step (median)", "ms/step (min)", "tokens/s", "GFLOP/s", "of product rate", "times Craft's step"]
    head += ["least", "peak MB", "idle CPU", "first loss"]
    rows = []
    for name, one in sorted(case["contestants"].items(), key=lambda entry: statistics.median(entry[1]["ms"])):
        ms = statistics.median(one["ms"])
        share = shares(case, one)
        flops = one.get("flops") or case["flops"]
        anchor = next((anchor for anchor in ANCHORS if anchor in one["beside"] and anchor != name), "")
        beside = against({"contestants": {name: one}}, anchor, lambda _: True) if anchor else None
        label = f"{name} (stand-in)" if one.get("stand_in") else name
        rows.append(
            (
                label,
                f"{ms:.2f}",
                f"{one['best_ms']:.2f}",
                f"{1e3 * case['tokens'] / ms:,.0f}",
                f"{flops / ms / 1e6:.0f}",
                f"{statistics.median(share):.1%}" if share else "",
                f"{beside[0].median:.2f}" if beside else "-",
                f"{beside[0].least:.2f}" if beside else "-",
                f"{one.get('peak_mb', 0):.0f}",
                f"{one.get('idle', 0):.1%}",
                f"{one['loss']:.5f}",
            )
        )
    return "\n".join((table(head, rows), _NOTE, _check(case), _absent(case["not_run"])))


def _check(case: Results) -> str:
    """Say whether all identical models are identical."""
    same = {name: one for name, one in case["contestants"].items() if one["architecture"] == "gpt2" and not one.get("stand_in")}
    losses = [one["loss"] for one in same.values() if one["precision"] == "fp32"]
    counts = {one["parameters"] for one in same.values()}
    stand_in = any(one.get("stand_in") for one in case["contestants"].values())
    words = f"Parameters: {', '.join(f'{count:,}' for count in sorted(counts))} (expected {case['parameters']:,}"
    words += "). " if counts <= {case["parameters"]} else "): NOT THE SAME MODEL. "
    if losses:
        gap = max(losses) - min(losses)
        words += f"First losses in fp32 differ by {gap:.1e} at most: {'agreed' if gap < 1e-3 else 'NOT THE SAME MODEL'}. "
    return words + ("This commit of Craft has no GPT-2: its own model stands in for it.\n" if stand_in else "\n")


def _absent(not_run: dict[str, str]) -> str:
    return "".join(f"- not run: {name}: {why}\n" for name, why in not_run.items())


def _start(found: Results) -> str:
    found = {name: each for name, each in found.items() if name != "not_run"}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = []
    for name in names:
        times = {kind: [each[name][kind] for each in found.values() if kind in each.get(name, {})] for kind in ("cold", "warm")}
        why = next((each[name]["not_run"] for each in found.values() if "not_run" in each.get(name, {})), "")
        rows.append((name, *(f"{statistics.median(each):.1f}" if each else "" for each in times.values()), why))
    return table(("process", "cold, s to the first update", "warm, s", "not run"), rows)


def _quality(found: Results) -> str:
    rows = [
        (
            name,
            f"{one['seconds']:.1f}",
            f"{one['loss']:.4f}",
            f"{one['test']:.4f}",
            "yes" if one["reached"] else "no",
            str(one["updates"]),
        )
        if "seconds" in one
        else (name, "not run", "", "", "", one["not_run"])
        for name, one in found.items()
        if isinstance(one, dict)
    ]
    absent = f"not run: {found['not_run']}\n" if "not_run" in found else ""
    return absent + table(("run", "seconds", "validation loss", "test loss", "reached", "updates"), rows)


def _memory(found: Results) -> str:
    rows = [
        (name, f"{one.get('peak_mb', 0) * 2**20 / 1e9:.2f}", f"{statistics.median(one['ms']):.0f}")
        for name, one in found.get("contestants", {}).items()
    ]
    return table(("contestant", "peak GB", "ms/step"), rows) + _absent(found.get("not_run", {}))


def _overhead(found: Results) -> str:
    ms = found.get("ms", {})
    rows = [(name, f"{statistics.median(each):.3f}", f"{min(each):.3f}") for name, each in ms.items()]
    return table(("contestant", "ms/step (median)", "min of the rounds"), rows) + _absent(found.get("not_run", {}))


def _loading(found: Results) -> str:
    rows = [
        (case, *(f"{statistics.median(one[name]):.3f}" for name in ("batch_ms", "mean_ms", "step_ms")))
        for case, one in found.items()
        if one["step_ms"]
    ]
    absent = "".join(_absent(one["not_run"]) for one in found.values())
    return table(("case", "a batch, ms (median)", "a batch, ms (mean)", "a step, ms (median)"), rows) + absent


def _generation(found: Results) -> str:
    rows = [
        (case, name, f"{statistics.median(each):.1f}", f"{max(each):.1f}")
        for case, one in found.items()
        for name, each in one["rates"].items()
    ]
    agreed = [
        f"{case}: of {one['tokens']} greedy tokens in fp32 the first {one['agreed']} are the same as Hugging Face's.\n"
        for case, one in found.items()
        if "agreed" in one
    ]
    absent = "".join(_absent(one["not_run"]) for one in found.values())
    return table(("case", "contestant", "tokens/s (median)", "best"), rows) + "\n" + "".join(agreed) + absent


def _help(found: Results) -> str:
    rows = [(name, f"{statistics.median(each):.2f}", f"{min(each):.2f}") for name, each in found["seconds"].items()]
    return table(("program", "seconds (median)", "min"), rows)


def _plan(found: Results) -> str:
    rows = [
        (flags, *(f"{one[kind][name]:.4g}" for name in NAMES for kind in ("predicted", "measured")))
        if "measured" in one
        else (flags, "not run", one["not_run"], "", "", "", "")
        for flags, one in found.items()
        if isinstance(one, dict)
    ]
    absent = f"not run: {found['not_run']}\n" if "not_run" in found else ""
    whats = (
        "memory planned, MB",
        "measured, MB",
        "first start planned, MB",
        "measured, MB",
        "planned, s/step",
        "measured, s/step",
    )
    head = ("configuration", *whats)
    return absent + table(head, rows)


def _default(found: Results) -> str:
    rates = [
        (mode, f"{one['start']:.1f}", f"{1e3 * one['update']:.1f}") if "start" in one else (mode, "not run", one["not_run"])
        for mode, one in found.get("rates", {}).items()
    ]
    rows = [
        (
            name,
            str(one["updates"]),
            ", ".join(f"{mode} {value:.0f}" for mode, value in one["predicted"].items()),
            ", ".join(f"{mode} {value:.1f}" for mode, value in one["measured"].items()),
            f"{one['auto_over_best']:.2f}",
        )
        if "updates" in one
        else (name, "", "", f"not run: {one['not_run']}", "")
        for name, one in found.items()
        if name != "rates"
    ]
    first = table(("mode", "start, s (empty caches)", "ms an update"), rates)
    return first + "\n" + table(("length", "updates", "predicted, s", "measured, s", "auto over best"), rows)


def _gpu(found: Results) -> str:
    if "not_run" in found:
        return f"not run: {found['not_run']}\n"
    case = _steady({"124m": found["124m"]}) if "124m" in found else ""
    recipes = {name: one for name, one in found.items() if name not in ("124m", "recipe not_run")}
    return case + "\n" + _quality(recipes)


_WRITERS = {
    "steady": _steady,
    "start": _start,
    "quality": _quality,
    "memory": _memory,
    "generation": _generation,
    "overhead": _overhead,
    "loading": _loading,
    "help": _help,
    "plan": _plan,
    "default": _default,
    "gpu": _gpu,
}
