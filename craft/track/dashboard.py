"""A dashboard for the runs of a W&B project: a workspace, defined through W&B's own package wandb-workspaces."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from craft.errors import UsageError
from craft.track.login import logged_in

__all__ = ["SECTIONS", "definition", "save", "workspace"]

OVER = {"steps": "step", "tokens": "tokens", "seconds": "time/seconds"}
"""What the quality is drawn over: the names on the panels, and in the runs."""

QUALITY = {"held-out bits per byte": "eval/bits_per_byte", "held-out loss": "eval/loss"}

TRAINING = {"training loss": "train/loss", "gradient norm": "train/grad_norm", "learning rate": "train/lr"}

SPEED = {"tokens a second": "time/tokens_per_second", "memory, MB": "time/memory_mb"}

SECTIONS = ("quality", "training", "speed", "samples")
"""Sections of the dashboard, from the top."""


def workspace(project: str, entity: str = "", flops: str = "") -> Any:
    """Build the workspace, without a connection.

    Parameters
    ----------
    project
        Project in W&B.
    entity
        User or team that it belongs to.
    flops
        Name under which the runs log floating-point operations; empty: they do not.

    Returns
    -------
    A `wandb_workspaces.workspaces.Workspace`.

    Raises
    ------
    UsageError
        If wandb-workspaces is not installed.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UsageError("got no package wandb-workspaces, which dashboards are made with; `pip install 'craft[dashboard]'`")
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    over = {**OVER, **({"FLOPs": flops} if flops else {})}
    quality = [(f"{name}, over {axis}", x, y) for name, y in QUALITY.items() for axis, x in over.items()]
    drawn = {
        "quality": quality,
        "training": [(name, OVER["steps"], y) for name, y in TRAINING.items()],
        "speed": [(name, OVER["seconds"], y) for name, y in SPEED.items()],
    }
    content = {name: [panels.LinePlot(title=title, x=x, y=[y]) for title, x, y in plots] for name, plots in drawn.items()}
    content["samples"] = [panels.WeavePanelSummaryTable(table_name="samples")]
    sections = [workspaces.Section(name=name, panels=content[name], is_open=True) for name in SECTIONS]
    return workspaces.Workspace(entity=entity, project=project, name="Craft", sections=sections)


def definition(made: Any) -> str:
    """Return a workspace as the JSON that W&B stores."""
    return json.dumps(json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True)), indent=2)


def save(project: str, entity: str = "", flops: str = "") -> str:
    """Save the workspace as a new view of a project in W&B, and return its address.

    Raises
    ------
    UsageError
        If wandb-workspaces is not installed, or nobody is logged in.
    """
    made = workspace(project, entity, flops)
    if not logged_in():
        raise UsageError("got no login for W&B; run `wandb login` first, or show the definition by --print")
    if not entity:
        import wandb

        made.entity = wandb.Api().default_entity
    return str(made.save_as_new_view().url)
