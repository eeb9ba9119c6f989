"""Guards that are taken away one by one, in a copy: a test must turn red, or the guard guards nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import attrs

__all__ = ["MUTATIONS", "Mutation", "Mutations", "mutate"]

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """A guard that is taken away.

    Attributes
    ----------
    name
        What is taken away.
    path, guard, without
        The file, the text there, and what takes its place.
    tests
        What must fail then, as pytest takes it.
    """

    name: str
    path: str
    guard: str
    without: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "the sync of a file",
        "craft/store/disk.py",
        "    else:\n        os.fsync(descriptor)\n",
        "    else:\n        pass\n",
        ("tests/tools/chaos/test_sync.py",),
    ),
    Mutation(
        "the sync of a staged file",
        "craft/store/publish.py",
        "        disk.sync_file(path)\n",
        "",
        ("tests/store/test_power.py", "tests/tools/chaos/test_power.py"),
    ),
    Mutation(
        "the sync of a directory before its rename",
        "craft/store/publish.py",
        "    disk.fsync_directory(directory)\n",
        "",
        ("tests/store/test_power.py",),
    ),
    Mutation(
        "the sync of the parent after a rename",
        "craft/store/publish.py",
        "        disk.fsync_directory(self.directory.parent)\n",
        "",
        ("tests/store/test_power.py",),
    ),
    Mutation(
        "the sync of the reports before a checkpoint",
        "craft/books.py",
        "        self.sinks.sync()\n",
        "",
        ("tests/tools/chaos/test_power.py",),
    ),
    Mutation(
        "the sync of the samples before a checkpoint",
        "craft/track/jsonl.py",
        "            store.sync(self._samples)\n",
        "",
        ("tests/tools/chaos/test_power.py",),
    ),
    Mutation(
        "the rename: a file is written in its place",
        "craft/store/file.py",
        '    temporary = aside(path, "tmp")\n',
        "    temporary = path\n    path.unlink(missing_ok=True)\n",
        ("tests/store",),
    ),
    Mutation(
        "the hash of a file",
        "craft/store/manifest.py",
        'if hashes and sha256(path) != entry["sha256"]:',
        "if False:",
        ("tests/store/test_manifest.py", "tests/tools/chaos/test_corruption.py"),
    ),
    Mutation(
        "the seal of a manifest",
        "craft/store/manifest.py",
        "    if not _matches(manifest, content):",
        "    if False:",
        ("tests/store/test_manifest.py", "tests/tools/chaos/test_corruption.py"),
    ),
    Mutation(
        "the check that a loss is finite",
        "craft/step.py",
        'torch.isfinite(metrics["loss"]) & torch.isfinite(norm) | skip',
        "torch.isfinite(norm) | True | skip",
        ("tests/test_train.py", "-k", "finite or every_leaf_alone"),
    ),
    Mutation(
        "the check that saved parameters are finite",
        "craft/checkpoint.py",
        "    _refuse_bad(tensors)\n",
        "",
        ("tests/test_checkpoint.py",),
    ),
    Mutation(
        "the lock of a run",
        "craft/store/lock.py",
        "    if not _seize(descriptor):",
        "    if not _seize(descriptor) and False:",
        ("tests/store/test_lock.py",),
    ),
    Mutation(
        "the copy of what is loaded",
        "craft/checkpoint.py",
        "file.get_tensor(_key(name)).clone()",
        "file.get_tensor(_key(name))",
        ("tests/test_checkpoint.py",),
    ),
    Mutation(
        "the copy of what is saved",
        "craft/saving.py",
        "            staged = checkpoint.stage(self.directory, state, memory=memory, extra=extra, pending=pending)\n",
        "            staged = None\n",
        ("tests/test_saving.py",),
    ),
    Mutation(
        "the verification before old ones are deleted",
        "craft/checkpoint.py",
        "        whole += _is_whole(paths[index], known)\n",
        "        whole += 1\n",
        ("tests/test_checkpoint.py",),
    ),
    Mutation(
        "the cut of reports that a resumed run makes again",
        "craft/track/jsonl.py",
        '            journal.cut(lambda row: 0 < info.step >= row["step"])\n',
        "            pass\n",
        ("tests/test_resume.py", "-k", "once"),
    ),
    Mutation(
        "the memory of the hooks",
        "craft/opening.py",
        "dict(kept.get(hook.name, {})) for hook in hooks",
        "{} for hook in hooks",
        ("tests/test_train.py", "-k", "survives_a_resume or never_stopped"),
    ),
    Mutation(
        "the hooks of a last step that was broken off",
        "craft/train.py",
        "        if self.pending is not None:",
        "        if False:",
        ("tests/test_resume.py", "-k", "crashed_in"),
    ),
    Mutation(
        "the first checkpoint of a fork",
        "craft/opening.py",
        "        if not own and (found is not None or params is not None):",
        "        if False:",
        ("tests/test_train.py", "-k", "saved_at_once"),
    ),
    Mutation(
        "the comparison of the data",
        "craft/resume.py",
        '    if "fingerprint" in differing:',
        "    if False:",
        ("tests/test_train.py", "-k", "other_data"),
    ),
    Mutation(
        "the comparison of the experiment's code",
        "craft/resume.py",
        '    if changed:\n        raise UsageError(\n            f"the code of',
        '    if False:\n        raise UsageError(\n            f"the code of',
        ("tests/test_train.py", "-k", "code_was_changed"),
    ),
)


@attrs.define
class Mutations:
    """What came of taking guards away."""

    tried: int = 0
    """Guards that were taken away."""
    seen: int = 0
    """Those that a test missed."""
    unseen: list[str] = attrs.field(factory=list)
    """Those that no test missed."""


def mutate(folder: Path, tell: Callable[[str], None] = lambda text: None, only: str = "") -> Mutations:
    """Take each guard away in a copy of the repository, and run the tests that must fail."""
    found = Mutations()
    for mutation in (one for one in MUTATIONS if only in one.name):
        copy = folder / "mutated"
        shutil.rmtree(copy, ignore_errors=True)
        for name in ("craft", "experiments", "tests", "tools"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / mutation.path
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.guard) != 1:
            raise ValueError(
                f"{mutation.path} has {mutation.guard.strip()!r} {text.count(mutation.guard)} times; expected once"
            )
        path.write_text(text.replace(mutation.guard, mutation.without), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests]
        done = subprocess.run(command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, check=False)
        found.tried += 1
        if done.returncode == 1:
            found.seen += 1
        else:
            found.unseen.append(f"{mutation.name} (pytest ended with {done.returncode})")
        tell(f"{found.tried} guards taken away, {found.seen} missed by a test; last: {mutation.name}")
    return found
