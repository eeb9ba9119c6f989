"""The sinks of a run, as its flags say."""

from __future__ import annotations

from craft.errors import UsageError
from craft.run import Track
from craft.track.console import Console
from craft.track.jsonl import Jsonl
from craft.track.login import resolve
from craft.track.many import Many
from craft.track.mirror import Wandb
from craft.track.tensorboard import TensorBoard
from craft.track.tracker import Tracker

__all__ = ["open"]


def open(track: Track, console: bool = True) -> Many:
    """Make the sinks that a run reports to; the record on the disk is always one.

    Parameters
    ----------
    track
        Where the numbers go.
    console
        Whether people watch this process.

    Returns
    -------
    All of them as one; `start` opens them.

    Raises
    ------
    UsageError
        If a sink is asked for whose package is not installed, or an upload without W&B.
    """
    trackers: list[Tracker] = [Jsonl()]
    if console:
        trackers.append(Console())
    if track.tensorboard:
        trackers.append(TensorBoard())
    mode = resolve(track.wandb)
    if mode != "off":
        trackers.append(Wandb(mode, say=lambda text: several.message(text), artifacts=track.artifacts))
    elif track.artifacts:
        raise UsageError(f"got --track.artifacts, but W&B is off (--track.wandb {track.wandb}); `wandb login`, or take offline")
    several = Many(trackers)
    return several
