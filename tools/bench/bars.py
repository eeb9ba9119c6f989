"""The bars that Craft sets itself, each with what this run measured beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from tools.bench.pairs import Ratio, ratio
from tools.bench.sections.plan import NAMES
from tools.bench.sections.quality import GOAL

__all__ = ["Bar", "against", "bars", "shares"]

Results = dict[str, Any]


@attrs.frozen
class Bar:
    """One of them."""

    name: str
    """What is asked."""
    measured: str
    """What was found, in words; or why nothing was."""
    held: bool | None = None
    """Whether it holds; none: it was not measured."""


def bars(results: Results) -> list[Bar]:
    """List all bars for the results of a run, measured or not."""
    parts = (_speed, _share, _single, _start, _default, _quality, _memory, _overhead, _loading, _generation, _help, _plan, _gpu)
    return [bar for part in parts for bar in part(results)]


def against(case: Results, anchor: str, wanted: Callable[[Results], bool]) -> tuple[Ratio, str] | None:
    """Compare an anchor with the fastest of some contestants.

    Parameters
    ----------
    case
        A case's results of the steady section.
    anchor
        Name of the one that is alive in all rounds.
    wanted
        Which of the others count.

    Returns
    -------
    How many times as long the fastest took, and its name; None where there is none.
    """
    found = []
    for name, one in case.get("contestants", {}).items():
        if name != anchor and wanted(one) and anchor in one["beside"]:
            pairs = [(own, ours) for own, ours in zip(one["ms"], one["beside"][anchor], strict=True) if ours is not None]
            if pairs:
                found.append((ratio([own for own, _ in pairs], [ours for _, ours in pairs]), name))
    return min(found, key=lambda entry: entry[0].median) if found else None


def shares(case: Results, one: Results) -> list[float]:
    """Return a contestant's share of the products' rate, one a round."""
    flops = one.get("flops") or case["flops"]
    return [flops / ms / 1e6 / peak for ms, peak in zip(one["ms"], one["peak"], strict=True) if peak]


def _speed(results: Results) -> Iterable[Bar]:
    case = results.get("steady", {}).get("1m", {})
    anchors = {"the identical GPT-2": "craft step bf16", "its default model": "craft step bf16 default"}
    names = {"plain": "best plain PyTorch", "hugging": "Hugging Face", "lightning": "Lightning", "jax_optax": "JAX"}
    for peer, least in (("plain", 2.5), ("hugging", 3.0), ("lightning", 3.0), ("jax_optax", 5.0)):
        for kept, allocator in ((False, "as users run it"), (True, "with Craft's allocator settings")):
            for model, anchor in anchors.items():
                name = f"step of 1M, batch 12: >= {least:g}x {names[peer]} {allocator}; Craft on {model}"
                found = against(case, anchor, lambda one, peer=peer, kept=kept: one["peer"] == peer and one["kept"] is kept)  # type: ignore[misc]
                yield Bar(name, *_ratio(found, least))


def _ratio(found: tuple[Ratio, str] | None, least: float) -> tuple[str, bool | None]:
    if found is None:
        return "not run", None
    value, name = found
    return f"{value.median:.2f}x (least {value.least:.2f}x of {value.rounds} rounds; {name})", value.median >= least


def _share(results: Results) -> Iterable[Bar]:
    for case, least in (("1m", 0.5), ("1m-b64", 0.5), ("10m", 0.65), ("25m", 0.65), ("100m", 0.65)):
        found = results.get("steady", {}).get(case, {})
        for kind in ("gpt2", "default"):
            ours = [
                (statistics.median(shares(found, one)), name)
                for name, one in found.get("contestants", {}).items()
                if one["peer"] == "craft" and one["precision"] == "bf16" and one["architecture"] == kind and shares(found, one)
            ]
            bar = f"share of the bf16 product rate at {case}, {kind}: >= {least:.0%}"
            best = max(ours, default=None)
            yield Bar(bar, f"{best[0]:.1%} ({best[1]})", best[0] >= least) if best else Bar(bar, "not run")


def _single(results: Results) -> Iterable[Bar]:
    for name in ("1m", "1m-b64", "10m", "25m", "100m"):
        case = results.get("steady", {}).get(name, {})
        found = against(case, "craft step fp32", lambda one: one["precision"] == "fp32" and one["peer"] != "craft")
        yield Bar(f"fp32 alone at {name}: not slower than the best peer", *_ratio(found, 1.0))


def _start(results: Results) -> Iterable[Bar]:
    rounds = [each for name, each in results.get("start", {}).items() if name != "not_run"]
    imported = [one["warm"] for each in rounds for name, one in each.items() if name.startswith("import torch")]
    base = statistics.median(imported) if imported else 0.0

    def bar(text: str, name: str, kind: str, most: float) -> Bar:
        times = [each[name][kind] for each in rounds if kind in each.get(name, {})]
        if not times:
            return Bar(text, _why(rounds, name))
        value = statistics.median(times)
        return Bar(text, f"{value:.1f} s; import torch {base:.2f} s", value <= most)

    for depth in (4, 8, 12):
        name = f"craft block bf16, {depth} layers"
        yield bar(f"empty caches to the first update, block, {depth} layers: <= 20 s", name, "cold", 20.0)
    yield bar("empty caches to the first update, step, 4 layers: <= 40 s", "craft step bf16, 4 layers", "cold", 40.0)
    none = "empty caches to the first update, none: <= import torch + 2 s"
    yield bar(none, "craft none bf16, 4 layers", "cold", base + 2.0)
    for mode in ("none", "block", "step"):
        text = f"second start, {mode}: <= import torch + 1.5 s"
        yield bar(text, f"craft {mode} bf16, 4 layers", "warm", base + 1.5)


def _why(rounds: Iterable[Results], name: str) -> str:
    reasons = [each[name]["not_run"] for each in rounds if "not_run" in each.get(name, {})]
    return f"not run: {reasons[0]}" if reasons else "not run"


def _default(results: Results) -> Iterable[Bar]:
    for name, how in (("30 s", "measured"), ("5 min", "measured"), ("1 h", "predicted from measured start and rates")):
        found = results.get("default", {}).get(name)
        text = f"--compile auto over {name}: within 10 % of the best mode"
        if found is None or "auto_over_best" not in found:
            yield Bar(text, f"not run: {found['not_run']}" if found else "not run")
        else:
            how = how if found["measured"] else "predicted from measured start and rates"
            yield Bar(text, f"{found['auto_over_best']:.2f}x, {how}", found["auto_over_best"] <= 1.1)


def _quality(results: Results) -> Iterable[Bar]:
    found = results.get("quality", {})
    text = f"tiny Shakespeare to {GOAL}, empty caches, process start included: <= 25 s for five seeds"
    ours = [one for name, one in found.items() if name.startswith("craft seed") and "seconds" in one]
    if not ours:
        yield Bar(text, f"not run: {found.get('not_run', 'not asked for')}")
        return
    slowest, worst = max(one["seconds"] for one in ours), max(one["loss"] for one in ours)
    shown = f"{len(ours)} seeds: slowest {slowest:.1f} s, worst loss {worst:.4f}"
    enough = len(ours) >= 5
    yield Bar(text, shown, slowest <= 25.0 and all(one["reached"] for one in ours) if enough else None)


def _memory(results: Results) -> Iterable[Bar]:
    kept = results.get("memory", {}).get("contestants", {})
    ours = {name: one for name, one in kept.items() if one["peer"] == "craft" and "peak_mb" in one}
    for memory, most, pace in (("auto", 1.8, 0.75), ("small", 1.15, 0.6)):
        text = f"peak of a 100M step, --memory {memory}: <= {most} GB at {pace:.0%} of the fastest"
        those = {name: one for name, one in ours.items() if one["memory"] == memory}
        if not those:
            reasons = results.get("memory", {}).get("not_run", {})
            yield Bar(text, f"not run: {next((why for name, why in reasons.items() if memory in name), 'not asked for')}")
            continue
        fastest = min(ours, key=lambda name: statistics.median(ours[name]["ms"]))
        rows = []
        for name, one in those.items():
            speed = 1.0 / ratio(one["ms"], ours[fastest]["ms"]).median
            size = one["peak_mb"] * 2**20 / 1e9
            rows.append((size <= most and speed >= pace, -size, f"{size:.2f} GB at {speed:.0%} ({name})"))
        held, _, shown = max(rows)
        yield Bar(text, shown, held)


def _overhead(results: Results) -> Iterable[Bar]:
    text = "fixed cost of a step outside the kernels at 1M: <= 0.5 ms"
    ms = results.get("overhead", {}).get("ms", {}).get("craft step bf16")
    yield (
        Bar(text, f"{statistics.median(ms):.2f} ms (upper bound)", statistics.median(ms) <= 0.5) if ms else Bar(text, "not run")
    )


def _loading(results: Results) -> Iterable[Bar]:
    for case in ("1m", "1m-b64"):
        text = f"a batch of {case} from shards: <= 5 % of its step"
        found = results.get("loading", {}).get(case, {})
        if not found.get("batch_ms"):
            yield Bar(text, "not run")
            continue
        # the mean: a batch now and then makes the order of 16384 samples
        batch, step = statistics.median(found["mean_ms"]), statistics.median(found["step_ms"])
        yield Bar(text, f"{batch:.2f} ms of {step:.1f}: {batch / step:.1%}", batch <= 0.05 * step)


def _generation(results: Results) -> Iterable[Bar]:
    for case in ("1m", "100m"):
        text = f"generation of {case}, one text, key-value cache: >= 1.5x Hugging Face"
        rates = results.get("generation", {}).get(case, {}).get("rates", {})
        ours = {name: each for name, each in rates.items() if name.startswith("craft") and "default" not in name}
        theirs = {name: each for name, each in rates.items() if name.startswith("hugging")}
        if not ours or not theirs:
            yield Bar(text, "not run")
            continue
        best, other = (max(those, key=lambda name: statistics.median(those[name])) for those in (ours, theirs))
        yield Bar(text, *_ratio((ratio(ours[best], theirs[other]), f"{best} over {other}"), 1.5))


def _help(results: Results) -> Iterable[Bar]:
    seconds = {name: statistics.median(each) for name, each in results.get("help", {}).get("seconds", {}).items()}
    texts = ("craft --help: < 0.5 s", "an experiment's --help: <= import torch + 0.5 s")
    if not seconds:
        yield from (Bar(text, "not run") for text in texts)
        return
    first, second, base = seconds["craft --help"], seconds["experiment --help"], seconds["import torch"]
    yield Bar(texts[0], f"{first:.2f} s", first < 0.5)
    yield Bar(texts[1], f"{second:.2f} s; import torch {base:.2f} s", second <= base + 0.5)


def _plan(results: Results) -> Iterable[Bar]:
    text = "craft plan within 15 % of the memory and 30 % of the time, 8 configurations"
    found = results.get("plan", {})
    pairs = [one for one in found.values() if isinstance(one, dict) and "measured" in one]
    if not pairs:
        yield Bar(text, f"not run: {found.get('not_run', 'not asked for')}")
        return
    off = {name: max(abs(one["predicted"][name] / one["measured"][name] - 1.0) for one in pairs) for name in NAMES}
    memory = max(off["memory_mb"], off["first_start_memory_mb"])
    shown = f"off by {memory:.0%} and {off['seconds_per_step']:.0%} at most, {len(pairs)} configurations"
    held = memory <= 0.15 and off["seconds_per_step"] <= 0.3
    yield Bar(text, shown, held if len(pairs) >= 8 else None)


def _gpu(results: Results) -> Iterable[Bar]:
    found = results.get("gpu", {})
    why = f"not run: {found.get('not_run', 'not asked for')}"
    case = found.get("124m")
    one = case["contestants"].get("craft step bf16") if case else None
    text = "GPU, 124M: share of the bf16 product rate"
    yield Bar(text, f"{statistics.median(shares(case, one)):.1%}") if one else Bar(text, why)
    against_plain = against(case, "craft step bf16", lambda one: one["peer"] == "plain") if case else None
    yield Bar("GPU, 124M: not slower than the plain loop", *(_ratio(against_plain, 1.0) if case else (why, None)))
    recipe = found.get("craft step bf16")
    text = "GPU, nanoGPT's character recipe: validation 1.47"
    if recipe and "loss" in recipe:
        yield Bar(text, f"{recipe['loss']:.4f} after {recipe['seconds']:.0f} s", recipe["reached"])
    else:
        yield Bar(text, why)
