"""The commands that look at runs: side by side, or at one of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import attrs
import tyro

from craft import report
from craft.cli.flags import parse_flags
from craft.errors import UsageError

__all__ = ["compare_runs", "report_run"]


@attrs.frozen
class Compare:
    """Put runs side by side: a table here, a page for the browser, figures for a paper.

    Runs that differ only in their seed are one row: their mean, and half of its 95 % interval.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of runs, or folders that hold runs."""
    html: Path | None = None
    """Write a page that needs no network: curves, tables, samples."""
    figures: Path | None = None
    """Folder for figures as SVG and PNG; needs matplotlib."""
    json: bool = False
    """Print one JSON object instead of the table."""
    debug: bool = False
    """Show the whole traceback of an error."""


def compare_runs(argv: Sequence[str]) -> int:
    """Run `craft compare`."""
    args: Compare = parse_flags(Compare, argv, "craft compare")
    if args.html is not None:
        report.check_target(args.html)
    if args.figures is not None:
        report.check_figures(args.figures)
    found = report.find(args.runs)
    comparison = report.compare([report.read(directory) for directory in found.directories])
    if args.json:
        sys.stdout.write(json.dumps(report.facts(comparison), allow_nan=False) + "\n")
    else:
        sys.stdout.write(report.table(comparison, max(60, shutil.get_terminal_size().columns)))
    for directory in found.silent:
        _say(f"left out {directory}: no metrics yet")
    if args.html is not None:
        report.save(comparison, args.html)
        _say(f"wrote {args.html}")
    if args.figures is not None:
        written = report.write_figures(comparison, args.figures)
        _say(f"wrote {len(written)} figures to {args.figures}")
    return 0


@attrs.frozen
class Report:
    """Write the page of one run, report.html in its directory: curves, samples and configuration, for the browser."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    html: Path | None = None
    """Write the page to this file instead."""
    debug: bool = False
    """Show the whole traceback of an error."""


def report_run(argv: Sequence[str]) -> int:
    """Run `craft report`."""
    args: Report = parse_flags(Report, argv, "craft report")
    found = report.find([args.run])
    if found.directories != (args.run,):
        raise UsageError(
            f"got {args.run}, a folder that holds runs; name one run, or see all: craft compare {args.run} --html FILE"
        )
    path = args.html or args.run / "report.html"
    report.write_page([args.run], path)
    sys.stdout.write(f"{path}\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
