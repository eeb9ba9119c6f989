"""What a worker is told: everything it needs to build its contestant, as one line of JSON."""

from __future__ import annotations

import json
from typing import Any

import attrs

from tools.bench.cases import Case
from tools.bench.contestants import Contestant
from tools.bench.material import Material

__all__ = ["Setup"]


@attrs.frozen
class Setup:
    """One contestant on one case."""

    contestant: Contestant
    """Who."""
    case: Case
    """Which shapes."""
    folder: str
    """Where the weights and batches lie."""
    threads: int
    """CPU threads."""
    device: str = "cpu"
    """cpu or cuda."""
    job: str = "train"
    """`train`, `generate` or `quality`."""
    options: dict[str, Any] = attrs.field(factory=dict)
    """What one job needs beyond that."""

    @property
    def material(self) -> Material:
        """The weights and batches."""
        return Material(self.folder)

    @property
    def bf16(self) -> bool:
        """Whether the products are computed in bf16."""
        return self.contestant.precision == "bf16"

    def dump(self) -> str:
        """Write this as one line."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def load(cls, line: str) -> Setup:
        """Read it back."""
        values = json.loads(line)
        return cls(**values | {"contestant": Contestant(**values["contestant"]), "case": Case(**values["case"])})
