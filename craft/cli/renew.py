"""A run's own page, written anew by what adds to the run."""

from __future__ import annotations

import sys
from pathlib import Path

from craft.errors import UsageError

__all__ = ["renew"]


def renew(directory: Path) -> None:
    """Write a run's report.html; that it cannot be written takes nothing from the run."""
    from craft import report

    try:
        report.write_page([directory], directory / "report.html")
    except (OSError, UsageError) as error:
        sys.stderr.write(f"no report.html: {error}\n")
