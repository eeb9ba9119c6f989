"""What a scaling study found: each run in numbers, a law for each kind of token, tables and figures of them.

Losses are in bits a byte of the held-out text, the only measure that characters and subwords share.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from craft import report
from craft.errors import UsageError
from craft.report import scaling
from craft.report.interval import interval
from craft.report.judged import EARLY, RARE, Judged
from craft.report.words import number, spread, time

__all__ = ["figures", "measured", "page", "summarise"]

Found = dict[str, Any]
Cell = tuple[str, str, float]
"""Kind of token, size, budget: what seeds are averaged over."""


def measured(place: Path) -> Found | None:
    """Return what a run came to; None where it is not finished."""
    try:
        story = report.read(place)
    except UsageError:
        return None
    loss = story.last("eval/bits_per_byte")
    if not story.finished or loss is None:
        return None
    model, text = story.config["model"], story.config["data"]
    scale = 1 / (math.log(2) * (story.bytes_per_token or math.nan))
    return {
        "parameters": model["parameters"],
        "body": model["parameters_without_embedding"],
        "flops": story.flops,
        "bytes": (story.tokens or 0.0) * text["bytes"]["train"] / text["tokens"]["train"],
        "epochs": text["epochs"],
        "seconds": story.seconds or math.nan,
        "bits_per_byte": loss,
        **(_judged(story.judged, scale) if story.judged else {}),
        "text": {name: text[name] for name in ("name", "documents", "corpus", "fingerprint", "bytes")},
    }


def _judged(one: Judged, scale: float) -> Found:
    """Return where a run loses, in bits a byte; `scale` is what a nat a token is in these."""
    places = {"early": one.early * scale, "late": one.late * scale, "rare": None if one.rare is None else one.rare / one.loss}
    return places | {"accuracy": one.accuracy, "calibration_error": one.calibration_error}


def summarise(found: Sequence[Found]) -> Found:
    """Fit a law to each kind of token, and compare what it promises for the largest budget with what was measured."""
    return {kind: _summary([one for one in found if one["kind"] == kind]) for kind in _each(found, "kind")}


def _summary(own: Sequence[Found]) -> Found:
    fitted = [scaling.Point(one["body"], one["bytes"], one["bits_per_byte"]) for one in own if not one["held_out"]]
    try:
        groups = scaling.grouped(fitted)
        law, draws = scaling.fit(scaling.averaged(groups)), scaling.bootstrap(groups)
    except UsageError as error:
        return {"not_fitted": str(error)}
    wrong = [law.loss(point.size, point.data) / point.loss - 1 for point in fitted]
    return {
        "runs": len(fitted),
        "law": law._asdict(),
        "intervals": {name: scaling.within(getattr(draw.law, name) for draw in draws) for name in law._fields},
        "residual": math.sqrt(statistics.fmean(x * x for x in wrong)),
        "predicted": [_predicted(law, draws, one) for one in own if one["held_out"]],
    }


def _predicted(law: scaling.Law, draws: Sequence[scaling.Draw], one: Found) -> Found:
    promised, came = law.loss(one["body"], one["bytes"]), one["bits_per_byte"]
    low, high = scaling.within(draw.loss(one["body"], one["bytes"]) for draw in draws)
    return {"size": one["size"], "budget": one["budget"], "promised": promised, "interval": [low, high], "measured": came} | {
        "off": promised / came - 1,
        "within": low <= came <= high,
    }


def _each(found: Iterable[Found], name: str) -> list[Any]:
    """Return the different values of a name, in their order."""
    return list(dict.fromkeys(one[name] for one in found))


def _cells(found: Sequence[Found]) -> dict[Cell, list[Found]]:
    """Put the seeds of each kind, size and budget together: by budget, then size."""
    ordered = sorted(found, key=lambda one: (one["budget"], one["body"] if one["kind"] == "char" else one["body"] + 1))
    cells: dict[Cell, list[Found]] = {}
    for one in ordered:
        cells.setdefault((one["kind"], one["size"], one["budget"]), []).append(one)
    return cells


def _value(seeds: Sequence[Found], name: str = "bits_per_byte") -> float | None:
    """Return the mean over seeds; None where a run was not judged."""
    values = [one[name] for one in seeds if one.get(name) is not None]
    return statistics.fmean(values) if values else None


def page(title: str, found: Sequence[Found], told: Found, drawn: Iterable[str] = ()) -> str:
    """Write what was found as Markdown, with the figures that are drawn beside it."""
    cells = _cells(found)
    parts = (
        f"# {title}\n\n{_text(found)}",
        _section("Runs", "Mean and 95 % interval over seeds; parameters in all, and without embedding and head.", _runs(cells)),
        _section("Equal compute", "Bits a byte; a row has one size and one budget.", _equal_compute(cells)),
        _section(
            "Equal text",
            "What characters reached on a text, and what subwords of the same size reach on as many bytes: between their "
            "budgets, by a straight line in logarithms. `compute` is that of the subwords, by that of the characters.",
            _equal_text(cells),
        ),
        _section(
            "What falls apart as models shrink",
            f"Bits a byte in the first {EARLY} places of a sample and in its second half; loss on the rarest tokens (at least "
            f"{RARE:.0%} of the text) by the mean loss; expected calibration error.",
            _apart(cells),
        ),
        "## Laws\n\n" + "".join(_law(kind, one) for kind, one in told.items()),
        *(f"![{name}]({name}.svg)\n" for name in drawn),
    )
    return "\n".join(parts)


def _text(found: Sequence[Found]) -> str:
    text = found[0]["text"]
    sizes = ", ".join(f"{size / 1e6:.1f} MB {split}" for split, size in text["bytes"].items())
    prints = ", ".join(
        f"{kind} {next(one['text']['fingerprint'][:12] for one in found if one['kind'] == kind)}"
        for kind in _each(found, "kind")
    )
    documents = f"{text['name']}, {text['documents']:,} documents"
    return f"Text: {documents}, {sizes}; sha256 {text['corpus'][:12]}, of its tokens {prints}.\n"


def _section(title: str, about: str, rows: list[Sequence[str]]) -> str:
    if len(rows) < 2:
        return f"## {title}\n\nNothing to compare.\n"
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return f"## {title}\n\n{about}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _spread(seeds: Sequence[Found]) -> str:
    return " ".join(part for part in spread(interval([one["bits_per_byte"] for one in seeds])) if part)


def _runs(cells: dict[Cell, list[Found]]) -> list[Sequence[str]]:
    head = (
        "tokens",
        "size",
        "parameters",
        "without ends",
        "FLOPs",
        "MB of text",
        "epochs",
        "seeds",
        "bits a byte",
        "time of one",
    )
    rows: list[Sequence[str]] = [head]
    for (kind, size, _), seeds in cells.items():
        one = seeds[0]
        came = _spread(seeds) + (" (held out)" if one["held_out"] else "")
        counts = (f"{one['parameters']:,}", f"{one['body']:,}", f"{one['flops']:.2g}", f"{one['bytes'] / 1e6:.1f}")
        last = (f"{one['epochs']:.2f}", str(len(seeds)), came, time(_value(seeds, "seconds")))
        rows.append((kind, size, *counts, *last))
    return rows


def _equal_compute(cells: dict[Cell, list[Found]]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("FLOPs", "size", "char", "subword", "subword less")]
    for (kind, size, budget), chars in cells.items():
        words = cells.get(("subword", size, budget))
        if kind == "char" and words:
            less = (_value(chars) or 0.0) - (_value(words) or 0.0)
            rows.append((f"{budget:.2g}", size, _spread(chars), _spread(words), f"{less:.4f}"))
    return rows


def _equal_text(cells: dict[Cell, list[Found]]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("size", "MB of text", "char", "subword", "subword less", "compute")]
    for (kind, size, _), chars in cells.items():
        own = [seeds for (other, name, _), seeds in cells.items() if (other, name) == ("subword", size)]
        there = _between(own, chars[0]["bytes"])
        if kind == "char" and there:
            loss, flops = there
            came = _value(chars) or math.nan
            parts = (f"{chars[0]['bytes'] / 1e6:.1f}", number(came), number(loss), f"{came - loss:.4f}")
            rows.append((size, *parts, f"{flops / chars[0]['flops']:.2f}"))
    return rows


def _between(own: Sequence[Sequence[Found]], size: float) -> tuple[float, float] | None:
    """Return (bits a byte, FLOPs) at so many bytes, between the two budgets beside it; None where there are none."""
    for low, high in itertools.pairwise(own):
        start, end = low[0]["bytes"], high[0]["bytes"]
        if start <= size <= end:
            part = math.log(size / start) / math.log(end / start)
            first, last = math.log(_value(low) or math.nan), math.log(_value(high) or math.nan)
            return math.exp(first + part * (last - first)), low[0]["flops"] * size / start
    return None


def _apart(cells: dict[Cell, list[Found]]) -> list[Sequence[str]]:
    names = ("early", "late", "rare", "accuracy", "calibration_error")
    rows: list[Sequence[str]] = [("tokens", "size", "FLOPs", "early", "late", "rare", "accuracy", "calibration error")]
    for (kind, size, budget), seeds in cells.items():
        values = [_value(seeds, name) for name in names]
        if None not in values:
            rows.append((kind, size, f"{budget:.2g}", *map(number, values)))
    return rows


def _law(kind: str, told: Found) -> str:
    if "not_fitted" in told:
        return f"- {kind}: no law, {told['not_fitted']}\n"
    law = scaling.Law(**told["law"])
    size, data = (f"{math.exp(log):.3g}" for log in (law.log_a, law.log_b))
    (a, b), (c, d), (e, f) = (told["intervals"][name] for name in ("floor", "alpha", "beta"))
    formula = f"{law.floor:.3f} + {size} / N^{law.alpha:.3f} + {data} / D^{law.beta:.3f}"
    text = (
        f"- {kind}: bits a byte = {formula}, N parameters without ends and D bytes, fitted to {told['runs']} runs, off by "
        f"{told['residual']:.1%} in the mean square. 90 % of resamples: floor {a:.3f} to {b:.3f}, power of N {c:.3f} to "
        f"{d:.3f}, of D {e:.3f} to {f:.3f}.\n"
    )
    return text + "".join(f"  - {_promise(one)}\n" for one in told["predicted"])


def _promise(one: Found) -> str:
    low, high = one["interval"]
    return (
        f"{one['size']} at {one['budget']:.2g} FLOPs, held out: promised {one['promised']:.4f} ({low:.4f} to {high:.4f}), "
        f"measured {one['measured']:.4f}, {'within' if one['within'] else 'outside'}; the promise is off by {one['off']:+.1%}."
    )


def figures(found: Sequence[Found], told: Found) -> dict[str, Callable[[Any], None]]:
    """Return what is drawn, by name: the law of each kind over compute, and both kinds over the text."""
    drawn = {f"law-{kind}": _compute(found, kind, told[kind]) for kind in told}
    return drawn | ({"text": _over_text(found)} if len(told) > 1 else {})


def _colours(found: Sequence[Found]) -> dict[str, Any]:
    """Return a colour for each size, darker where it is larger (viridis, without its yellow end)."""
    import matplotlib  # craft[report], which `report.check_figures` has asked for

    sizes = _each(sorted(found, key=lambda one: one["body"]), "size")
    map_ = matplotlib.colormaps["viridis_r"]
    return {size: map_(0.15 + 0.85 * index / max(1, len(sizes) - 1)) for index, size in enumerate(sizes)}


def _compute(found: Sequence[Found], kind: str, told: Found) -> Callable[[Any], None]:
    """Draw bits a byte over compute: dots measured, lines the law, and what it promised of the largest budget."""

    def paint(picture: Any) -> None:
        place = picture.add_subplot()
        for size, colour in _colours(found).items():
            own = [one for one in found if (one["kind"], one["size"]) == (kind, size)]
            place.plot(
                [one["flops"] for one in own],
                [one["bits_per_byte"] for one in own],
                "o",
                color=colour,
                markersize=3,
                label=size,
            )
            if own and "law" in told:
                place.plot(*_promises(scaling.Law(**told["law"]), own, found), "--", color=colour, linewidth=0.8)
        for one in told.get("predicted", ()):
            low, high = one["interval"]
            errors = [[one["promised"] - low], [high - one["promised"]]]
            place.errorbar(one["budget"], one["promised"], yerr=errors, fmt="_", color="black", capsize=3, label="promised")
        _dressed(place, "training compute (FLOPs)", f"bits per byte, {kind}")
        budgets = sorted({one["budget"] for one in found})
        place.set_xticks(budgets, [f"{budget:.3g}".replace("e+", "e") for budget in budgets])

    return paint


def _promises(law: scaling.Law, own: Sequence[Found], found: Sequence[Found]) -> tuple[list[float], list[float]]:
    """Return the law of a size from its least budget to the largest of all: (FLOPs, bits a byte)."""
    one = own[0]
    low, high = math.log(min(run["flops"] for run in own)), math.log(max(run["flops"] for run in found))
    x = [math.exp(low + (high - low) * part / 40) for part in range(41)]
    return x, [law.loss(one["body"], flops * one["bytes"] / one["flops"]) for flops in x]


def _over_text(found: Sequence[Found]) -> Callable[[Any], None]:
    """Draw bits a byte over bytes of training text: a colour a size, characters solid and subwords dashed."""

    def paint(picture: Any) -> None:
        place = picture.add_subplot()
        cells = _cells(found)
        for (size, colour), (kind, dash) in itertools.product(_colours(found).items(), (("char", "-"), ("subword", "--"))):
            own = [seeds for (of, name, _), seeds in cells.items() if (of, name) == (kind, size)]
            x, y = [seeds[0]["bytes"] / 1e6 for seeds in own], [_value(seeds) for seeds in own]
            place.plot(
                x, y, dash, marker="o", markersize=3, linewidth=0.9, color=colour, label=size if kind == "char" else None
            )
        place.plot([], [], "--", color="gray", linewidth=0.9, label="subword")
        _dressed(place, "training text (MB)", "bits per byte")

    return paint


def _dressed(place: Any, x: str, y: str) -> None:
    place.set_xscale("log")
    place.xaxis.set_minor_formatter("")
    place.set_xlabel(x)
    place.set_ylabel(y)
    place.legend(ncols=2)
