"""The dashboard's definition: what it draws has the names that runs report, and without its package it says what to install."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from craft.errors import UsageError
from craft.track import Report, dashboard

HOUSE = str(Path(__file__).parents[2])
INSTALLED = pytest.mark.skipif(importlib.util.find_spec("wandb_workspaces") is None, reason="needs the extra `dashboard`")


def shown(*more):
    """Return the definition, from a process of its own: this one shall not import wandb."""
    command = [sys.executable, "-m", "craft", "track", "dashboard", "--project", "mine", "--print", *more]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": HOUSE}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


@INSTALLED
def test_the_definition_has_its_sections_and_panels():
    made = shown("--entity", "me", "--flops", "train/flops")
    assert (made["entity"], made["project"], made["displayName"]) == ("me", "mine", "Craft")
    sections = {section["name"]: section["panels"] for section in made["spec"]["section"]["panelBankConfig"]["sections"]}
    assert tuple(sections) == dashboard.SECTIONS
    drawn = {
        name: [(panel["config"]["xAxis"], *panel["config"]["metrics"]) for panel in panels if "metrics" in panel["config"]]
        for name, panels in sections.items()
    }
    assert ("tokens", "eval/bits_per_byte") in drawn["quality"]
    assert ("train/flops", "eval/loss") in drawn["quality"]
    assert len(drawn["quality"]) == 8
    assert ("step", "train/grad_norm") in drawn["training"]
    assert ("time/seconds", "time/tokens_per_second") in drawn["speed"]
    assert '"samples"' in json.dumps(sections["samples"])


@INSTALLED
def test_without_flops_nothing_is_drawn_over_them():
    sections = shown()["spec"]["section"]["panelBankConfig"]["sections"]
    assert len(sections[0]["panels"]) == 6


def test_speed_and_axes_have_the_names_of_reports():
    report = Report(1, 10, {}, {"seconds": 1.0, "tokens_per_second": 2.0, "memory_mb": 3.0})
    assert {dashboard.OVER["seconds"], *dashboard.SPEED.values()} == report.named().keys()


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'craft\[dashboard\]'"):
        dashboard.workspace("mine")
