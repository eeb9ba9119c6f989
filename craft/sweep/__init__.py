"""Sweeps: many trials of an experiment, those of one program stepped together."""

from craft.sweep.pack import Pack as Pack
from craft.sweep.pack import groups as groups
