"""`craft plan`: what training an experiment would take, before it is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from craft.cli.experiment import parse
from craft.cli.find import name_of
from craft.cli.fit import fit

__all__ = ["plan"]


def plan(cls: type[Any], argv: Sequence[str], presets: Mapping[str, Any], prog: str) -> int:
    """Parse the flags of an experiment, predict its run and print what came out; `--json` prints one object."""
    experiment, run = parse(cls, [word for word in argv if word != "--json"], presets, prog)
    from craft import engine
    from craft.engine.predict import predict

    fitted = fit(experiment, run)
    task = fitted.experiment.build()
    machine = engine.start(run, steps=task.steps, flops=task.flops)
    process = engine.resident_bytes()
    chosen = fitted.choice or engine.choose_memory(run.memory, task, machine, None)
    machine = attrs.evolve(machine, rematerialise=chosen.rematerialise, memory=chosen.why)
    found = _facts(name_of(cls), fitted.experiment, run.memory, task, machine, predict(task, machine, process=process))
    sys.stdout.write(json.dumps(found) + "\n" if "--json" in argv else _table(found))
    return 0


def _facts(name: str, experiment: Any, asked: str, task: Any, machine: Any, one: Any) -> dict[str, Any]:
    from craft import param

    step, steps, tokens = one.step, task.steps, task.data.tokens
    spec = task.model.spec if task.model is not None else None
    how = machine.describe()
    optimiser = getattr(experiment, "optimizer", None)
    return {
        "experiment": name,
        **{key: how[key] for key in ("device", "precision", "threads", "compile", "rematerialise")},
        "compile_why": machine.why,
        "memory": asked,
        "memory_why": machine.memory,
        "accumulate": getattr(experiment, "accumulate", 1),
        "bits": getattr(optimiser, "bits", 32),
        "parameters": param.count(spec) if spec is not None else step.parameters // 4,
        "parameters_without_embeddings": _without_embeddings(spec) if spec is not None else step.parameters // 4,
        "flops_per_token": task.flops / tokens,
        "tokens_per_step": tokens,
        "memory_parts_mb": {
            "process": one.process / 2**20,
            "parameters": step.parameters / 2**20,
            "optimiser": step.optimizer / 2**20,
            "batch": step.batch / 2**20,
            "activations": step.activations / 2**20,
            "gradients, workspace": (max(step.transient, step.evaluation) - step.activations) / 2**20,
            "allocator": one.slack / 2**20,
        },
        "memory_mb": one.peak / 2**20,
        "first_start_memory_mb": one.first / 2**20,
        "seconds_per_step": one.seconds,
        "tokens_per_second": tokens / one.seconds,
        "first_start_seconds": one.first_start,
        "start_seconds": one.start,
        "steps": steps,
        "run_seconds": one.start + steps * one.seconds,
    }


def _without_embeddings(spec: Any) -> int:
    from craft import param, tree

    return param.count(spec, [path for path in tree.paths(spec) if "embed" in path])


def _table(found: dict[str, Any]) -> str:
    parts = found["memory_parts_mb"]
    kept = "computed again" if found["rematerialise"] else "kept"
    rows = [
        f"{found['experiment']} on {found['device']}, {found['precision']}, {found['threads']} threads",
        *_wrapped(f"compile {found['compile']}", found["compile_why"]),
        *_wrapped(f"memory {found['memory']}", found["memory_why"]),
        "",
        _row("parameters", f"{found['parameters']:,}", f"{found['parameters_without_embeddings']:,} without embeddings"),
        _row("flops per token", f"{found['flops_per_token']:.3g}", "forward and backward"),
        _row("tokens per step", f"{found['tokens_per_step']:,}", f"in {found['accumulate']} parts" * (found["accumulate"] > 1)),
        "",
        *(_row(name, f"{size:,.0f} MB", kept * (name == "activations")) for name, size in parts.items()),
        _row("peak", f"{found['memory_mb']:,.0f} MB", ""),
        *[_row("peak, first start", f"{found['first_start_memory_mb']:,.0f} MB", "with the compiler")]
        * (found["first_start_memory_mb"] > found["memory_mb"]),
        "",
        _row("step", _time(found["seconds_per_step"]), f"{found['tokens_per_second']:,.0f} tokens/s"),
        _row("start", _time(found["start_seconds"]), f"the first, with nothing cached: {_time(found['first_start_seconds'])}"),
        _row("run", _time(found["run_seconds"]), f"{found['steps']:,} steps, without evaluations and samples"),
    ]
    return "\n".join(row.rstrip() for row in rows) + "\n"


def _row(name: str, value: str, more: str) -> str:
    return f"  {name:<22}{value:>14}  {more}"


def _wrapped(name: str, why: str) -> list[str]:
    import textwrap

    return textwrap.wrap(f"{name}: {why}", 80, subsequent_indent="  ")


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
