"""`python -m tools.chaos`: break runs, and say how often nothing was lost."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from craft.cli.flags import parse_flags
from craft.cli.guard import guarded
from craft.errors import UsageError

SECTIONS = ("operations", "random", "corruption", "power", "preparing", "mutations", "saving")


@attrs.frozen
class Chaos:
    """Break small runs and preparations in every way that is known here, go on with them, and compare.

    operations: killed before each operation of the disk. random: killed at random moments. corruption: changed bytes of a
    checkpoint. power: states that a power cut may leave. preparing: kills and power cuts while data is prepared. mutations:
    guards taken away, for which a test must fail. saving: what a save costs.
    """

    sections: str = ",".join(SECTIONS)
    """What is done, by commas."""
    kills: int = 200
    """Kills at random moments."""
    changes: int = 1000
    """Changes of a checkpoint's bytes."""
    each: int = 4
    """States that are built for each moment of a power cut."""
    seed: int = 0
    """Seed of all draws."""
    out: Path | None = None
    """Directory of the runs, where those stay that ended wrong; none: a temporary one, which is deleted."""
    debug: bool = False
    """Show the whole traceback of an error."""


def main(argv: Sequence[str]) -> int:
    """Run the sections; return 1 if anything was lost."""
    args = parse_flags(Chaos, argv, "python -m tools.chaos")
    chosen = args.sections.split(",")
    if unknown := sorted(set(chosen) - set(SECTIONS)):
        raise UsageError(f"got the section {unknown[0]!r}; expected some of {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wrong = [line for name in chosen for line in _section(name, args, folder / name)]
    for line in wrong:
        sys.stdout.write(f"WRONG: {line}\n")
    return 1 if wrong else 0


def _section(name: str, args: Chaos, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    text, wrong = _DO[name](args, folder)
    _tell("")
    sys.stdout.write(f"{name}: {text} ({time.monotonic() - began:.0f} s)\n")
    sys.stdout.flush()
    return wrong


def _operations(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.kills import at_operations

    found = at_operations(folder, tell=_tell)
    right = found.runs - len(found.wrong)
    return (
        f"killed before {found.killed} of {found.points} operations of the disk, {right} runs ended with the same bits",
        found.wrong,
    )


def _random(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.kills import at_random
    from tools.chaos.runs import LONG

    found = at_random(folder, args.kills, subject=LONG, seed=args.seed, tell=_tell)
    right = found.runs - len(found.wrong)
    return f"{found.killed} kills at random moments, {right} of {found.runs} runs ended with the same bits", found.wrong


def _corruption(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.corruption import corrupt
    from tools.chaos.runs import go

    go(folder, folder / "whole", steps=3)
    found = corrupt(folder, folder / "whole", args.changes, seed=args.seed, tell=_tell)
    return f"{found.tried} changes of a checkpoint's bytes, {found.refused} refused", found.silent


def _power(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.power import cut_a_run

    found = cut_a_run(folder, args.each, tell=_tell)
    return f"{found.states} states after a power cut, nothing saved lost in {found.states - len(found.wrong)}", found.wrong


def _preparing(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.kills import at_operations, at_random
    from tools.chaos.preparing import PREPARATION, cut_a_preparation

    killed = at_operations(folder / "operations", subject=PREPARATION, tell=_tell)
    random = at_random(folder / "random", args.kills, subject=PREPARATION, seed=args.seed, tell=_tell)
    cut = cut_a_preparation(folder / "power", args.each, tell=_tell)
    wrong = [*killed.wrong, *random.wrong, *cut.wrong]
    return (
        f"killed before {killed.killed} of {killed.points} operations of the disk, {random.killed} kills at random moments in "
        f"{random.runs} preparations, {cut.states} states after a power cut; {len(wrong)} gave other data",
        wrong,
    )


def _mutations(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.mutations import mutate

    found = mutate(folder, tell=_tell)
    return f"{found.tried} guards taken away, {found.seen} missed by a test", found.unseen


def _saving(args: Chaos, folder: Path) -> tuple[str, list[str]]:
    from tools.chaos.cost import cost_of_saving

    lines = []
    for width, depth, batch in ((128, 4, 12), (384, 6, 12), (768, 12, 1)):
        one = cost_of_saving(folder / str(width), width, depth, batch=batch, tell=_tell)
        lines.append(
            f"{one.parameters / 1e6:.1f}M parameters ({one.megabytes:.0f} MB): {1000 * one.lost:.0f} ms a save (least "
            f"{1000 * one.least:.0f}), {1000 * one.held:.0f} of them standing still, {one.share:.2%} at one a minute"
        )
    return "; ".join(lines), []


_DO: dict[str, Callable[[Chaos, Path], tuple[str, list[str]]]] = {
    "operations": _operations,
    "random": _random,
    "corruption": _corruption,
    "power": _power,
    "preparing": _preparing,
    "mutations": _mutations,
    "saving": _saving,
}


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text[:110]}")
        sys.stderr.flush()


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
