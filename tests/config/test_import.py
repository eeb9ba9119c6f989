"""The import of configurations, which every command line waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from craft import config


def test_the_import_is_light() -> None:
    root = str(Path(config.__file__).parents[2])
    code = (
        "import sys; import craft.config, craft.run, craft.store; print({'torch', 'wandb', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": root})
    assert done.stdout.strip() == "set()"
