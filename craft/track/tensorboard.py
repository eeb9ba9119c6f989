"""TensorBoard files below the run's directory."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from craft.errors import UsageError
from craft.track.text import block, visible
from craft.track.tracker import Info, Report

__all__ = ["TensorBoard"]


class TensorBoard:
    """Write what `tensorboard --logdir RUN` shows; a resumed run hides the steps that it makes again.

    Raises
    ------
    UsageError
        If the package is missing.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError("got track.tensorboard, but tensorboard is not installed; `pip install 'craft[tensorboard]'`")
        self._writer: Any = None

    def start(self, info: Info) -> None:
        """Open the writer and store the configuration."""
        from torch.utils.tensorboard import SummaryWriter  # it takes a while to import

        purge = info.step + 1 if info.step else None
        self._writer = SummaryWriter(log_dir=str(info.directory / "tensorboard"), purge_step=purge)
        self._text("config", json.dumps(info.config, indent=2, default=str), info.step)

    def report(self, report: Report) -> None:
        """Write one point a number."""
        for name, value in report.named().items():
            self._writer.add_scalar(name, value, report.step)
        self._writer.flush()

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Write a sample."""
        self._text("sample", block(step, prompt, text), step)

    def message(self, text: str) -> None:
        """Do nothing: messages are for the terminal and log.txt."""

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Close the writer."""
        if self._writer is not None:
            self._writer.close()

    def _text(self, name: str, text: str, step: int) -> None:
        """Write text as Markdown that shows it as it is: lines indented by four are code there."""
        self._writer.add_text(name, "\n".join(f"    {line}" for line in visible(text).split("\n")), step)
