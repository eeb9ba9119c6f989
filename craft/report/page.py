"""One self-contained page of runs: it opens from the disk and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from craft import store
from craft.errors import UsageError
from craft.report import markup
from craft.report.comparison import Comparison, compare
from craft.report.curves import curves
from craft.report.story import read
from craft.report.where import where

__all__ = ["check_target", "page", "save", "write_page"]

_ASSETS = Path(__file__).with_name("assets")
_PROGRAM = ("node.js", "scale.js", "lines.js", "chart.js", "controls.js")


def write_page(directories: Sequence[Path], path: Path) -> None:
    """Write the page of some runs: `write_page([run], run / "report.html")` at the end of a run.

    Parameters
    ----------
    directories
        Directories of runs, at least one.
    path
        The page, a file that ends in .html; it is replaced as a whole.

    Raises
    ------
    UsageError
        If a directory is not a run or has reported nothing, or the page cannot be written there.
    """
    check_target(path)
    save(compare([read(directory) for directory in directories]), path)


def save(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison.

    Raises
    ------
    UsageError
        If it cannot be written there.
    """
    check_target(path)
    try:
        store.write(path, page(comparison).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"got {path} for the page, which cannot be written ({error.strerror}); name another file") from error


def check_target(path: Path) -> None:
    """Refuse a file that a page must not, or cannot, be written to.

    Raises
    ------
    UsageError
        If it does not end in .html, is a directory, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"got {path} for the page; expected a file that ends in .html")
    if path.is_dir():
        raise UsageError(f"got {path} for the page, which is a directory; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"got {path} for the page, but there is no folder {path.parent}; make it, or name another file")


def page(comparison: Comparison) -> str:
    """Return the page as HTML, a function of the runs alone: no time, no machine."""
    guard, style = _asset("guard.js"), _asset("style.css")
    program = '"use strict";\n(() => {\n' + "".join(_asset(name) for name in _PROGRAM) + "})();\n"
    return Template(_asset("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(guard)} {_hash(program)}",
        title=escape(_title(comparison)),
        style=style,
        guard=guard,
        program=program,
        lead=escape(_lead(comparison)),
        notes=markup.notes(comparison),
        finals=markup.finals(comparison),
        costs=markup.costs(comparison),
        where=_section("Where they lose" if len(comparison.stories) > 1 else "Where it loses", where(comparison)),
        configuration=markup.differences(comparison) + markup.shared(comparison),
        samples=_section("Samples", markup.samples(comparison)),
        data=_inline(curves(comparison)),
    )


def _title(comparison: Comparison) -> str:
    if len(comparison.stories) == 1:
        return f"{comparison.title}: {comparison.stories[0].directory.resolve().name}"
    return comparison.title


def _lead(comparison: Comparison) -> str:
    runs, groups = len(comparison.stories), len(comparison.groups)
    if runs == 1:
        story = comparison.stories[0]
        return f"One run, {f'finished after {story.step}' if story.finished else f'at {story.step} of {story.steps}'} updates."
    return f"{runs} runs" + (f" of {groups} configuration{'s' * (groups > 1)}." if comparison.repeated else ".")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Name a text in the page's policy: nothing else is run, whatever a run has written into its files."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inline(data: object) -> str:
    """Return JSON that can end no script element and begin no comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
