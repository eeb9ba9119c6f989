"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench.cases import CASES
from tools.bench.machine import describe
from tools.bench.pool import NotRun
from tools.bench.session import Session
from tools.bench.tables import page

__all__ = ["SECTIONS", "main", "measure", "parse"]

SECTIONS = (
    "steady", "start", "quality", "memory", "generation", "overhead", "loading", "help", "plan", "default", "gpu",
)  # fmt: skip
PEERS = ("craft", "plain", "hugging", "lightning", "jax_optax")
_EXAMPLES = """\
examples
  python -m tools.bench --quick                                    1M in a few minutes
  python -m tools.bench --text shakespeare.txt --out outputs/b     everything, hours
  python -m tools.bench --out outputs/b --resume                   the rest of what was broken off
  python -m tools.bench --only steady --cases 10m,25m --peers craft,plain
"""
_QUICK = ("steady", "start", "overhead", "help")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write DIR/bench.json and DIR/bench.md after each piece."""
    asked = parse(argv)
    session = _session(asked)
    session.out.mkdir(parents=True, exist_ok=True)
    file = session.out / "bench.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if asked.resume and file.exists() else {}
    results["machine"] = describe(session.threads)
    for section in asked.only:
        measure(session, section, results)
    write(session.out, results)
    sys.stdout.write(page(results))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        "python -m tools.bench", description="Craft beside its peers, in turns on this machine.", epilog=_EXAMPLES
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def names(known: Sequence[str]) -> Any:
        def split(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
            unknown = [name for name in chosen if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"got {', '.join(unknown)}; expected some of {', '.join(known)}")
            return chosen

        return split

    add = parser.add_argument
    add("--only", type=names(SECTIONS), help=f"sections, with commas between; of {', '.join(SECTIONS)}")
    add("--cases", type=names(tuple(CASES)), help=f"shapes of the steady section; of {', '.join(CASES)}")
    add("--peers", type=names(PEERS), default=[], help=f"who takes part; of {', '.join(PEERS)}")
    add("--rounds", type=int, default=0, help="turns that everybody has (20, or 4 with --quick)")
    add("--threads", type=int, default=0, help="CPU threads of each contestant (all cores)")
    add("--text", type=Path, help="text of the time to quality: tiny Shakespeare")
    add("--out", type=Path, default=Path("outputs/bench"), help="folder of bench.json, bench.md, logs and caches")
    add("--quick", action="store_true", help="a few minutes: 1M, the likely best variants, few rounds")
    add("--resume", action="store_true", help="keep what bench.json in --out has, and measure the rest")
    asked = parser.parse_args(argv)
    asked.only = asked.only or list(_QUICK if asked.quick else SECTIONS)
    asked.cases = asked.cases or (["1m"] if asked.quick else list(CASES))
    if asked.text is not None and not asked.text.is_file():
        parser.error(f"got --text {asked.text}, which is no file")
    return asked


def _session(asked: argparse.Namespace) -> Session:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Session(
        out=asked.out.resolve(),
        threads=min(asked.threads or available, available),
        cases=tuple(CASES[name] for name in asked.cases),
        rounds=asked.rounds or (4 if asked.quick else 20),
        quick=asked.quick,
        peers=tuple(asked.peers),
        text=asked.text.resolve() if asked.text else None,
    )


def measure(session: Session, section: str, results: dict[str, Any]) -> None:
    """Run a section, and write the results after each of its pieces.

    Parameters
    ----------
    session
        What was asked for.
    section
        Its name.
    results
        Everything so far; the section's pieces are added, and the ones that are there already are not made again.
    """
    kept = results.setdefault(section, {})
    if isinstance(kept.get("not_run"), str):  # what was missing may be there now
        del kept["not_run"]
    session.say(f"== {section}")
    try:
        for name, piece in importlib.import_module(f"tools.bench.sections.{section}").run(session, kept):
            kept[name] = piece
            _sign(session, results, section)
            write(session.out, results)
    except NotRun as reason:
        kept["not_run"] = str(reason)
        session.say(f"{section} is not run: {reason}")


def _sign(session: Session, results: dict[str, Any], section: str) -> None:
    """Note when, how and at which commits a section was made: pieces that were kept may be of an earlier one."""
    made = results.setdefault("made", {}).setdefault(section, {"commits": [], "how": []})
    how = f"{session.rounds} rounds, {session.threads} threads{', quick' if session.quick else ''}"
    for name, value in (("commits", results.get("machine", {}).get("commit", "unknown")), ("how", how)):
        made[name] += [value] if value not in made[name] else []
    made["at"] = datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write both files; what lies there stays whole until the new one is."""
    for name, text in (("bench.json", json.dumps(results, indent=1)), ("bench.md", page(results))):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
