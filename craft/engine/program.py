"""Compiled programs: a pure function of trees becomes one flat program, whose state is written back inside the graph.

A program is traced by running its function on tensors without content, gradients and all, so that any transform of
torch.func and any hand-written derivative may be in it. On CPUs it is written as C++, built, and kept in a package that the
next process with the same function, shapes and machine loads in milliseconds, without tracing or compiling anything.
"""

from __future__ import annotations

import gc
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from craft import policy, tree
from craft.cache import cache_directory
from craft.engine.fingerprint import Unknown, fingerprint
from craft.engine.native import Builder, load
from craft.engine.package import Library, Package
from craft.engine.plan import Plan, make_plan
from craft.engine.region import Regions
from craft.errors import UsageError
from craft.types import Metrics, Step, Tensor, Tree

__all__ = ["Program", "cache_compiled", "compile_function", "compile_step", "compiler_missing", "surroundings", "trace_step"]


_CACHE = "TORCHINDUCTOR_CACHE_DIR"


class Program:
    """A compiled function of trees.

    Attributes
    ----------
    digest
        Hash of its compiled code; empty where it is not kept.
    found
        Whether it was loaded, not built.
    """

    def __init__(self, run: Callable[[list[Tensor]], list[Tensor]], structure: Any, digest: str, found: bool) -> None:
        self._run, self._structure = run, structure
        self.digest, self.found = digest, found

    def __call__(self, *args: Tree) -> Any:
        """Run it on arguments of the structure, shapes, types and devices of the examples."""
        with torch.no_grad():
            return tree.unflatten(self._structure, self._run(tree.leaves(args)))


def compiler_missing(device: torch.device) -> str:
    """Say in a sentence why nothing can be compiled for the device; empty if it can."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    if any(shutil.which(name) for name in names):
        return ""
    kind = "C++ compiler" if device.type == "cpu" else "compiler"
    return f"no {kind} was found ({', '.join(names)})"


def cache_compiled(directory: Path) -> None:
    """Let torch keep what it compiles in `directory`, readable by this user alone.

    `TORCHINDUCTOR_CACHE_DIR` wins; a directory that cannot be written leaves torch's own choice.
    """
    if _CACHE in os.environ:
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError:
        return
    os.environ[_CACHE] = str(directory)


def compile_step(
    update: Step, state: Tree, batch: Tree, *, blocks: bool = False, keep: bool = True, say: Any = None
) -> Program:
    """Compile a step into one program that overwrites the state it is given.

    The step is traced once, gradients and all, into one graph that ends with the copies of the new leaves into the old
    ones: memory does not double and the caller's step stays pure.

    Parameters
    ----------
    update
        (state, batch) -> (state, metrics), pure.
    state, batch
        Examples; every later call has the same structure, shapes, types and devices.
    blocks, keep, say
        As for `compile_function`.

    Returns
    -------
    (state, batch) -> metrics; the state's leaves hold the new state afterwards.
    """
    return compile_function(_written(update), state, batch, blocks=blocks, keep=keep, say=say)


def trace_step(update: Step, state: Tree, batch: Tree, *, blocks: bool) -> tuple[Plan, dict[str, Any]]:
    """Trace a step as `compile_step` does and compile nothing; return the plan and the pieces' graphs.

    Parameters
    ----------
    update, state, batch, blocks
        As for `compile_step`; the examples may be tensors without content.
    """
    from craft.engine.lower import decompositions

    leaves, structure = tree.flatten((state, batch))
    regions = Regions("block", decompositions()) if blocks else None
    return _traced(_written(update), leaves, structure, regions)[:2]


def _written(update: Step) -> Callable[[Tree, Tree], Metrics]:
    """Make of a pure step one that writes the new state into the old and returns the metrics."""

    def run(state: Tree, batch: Tree) -> Metrics:
        new, metrics = update(state, batch)
        owned: Metrics
        held = {leaf.untyped_storage()._cdata for leaf in tree.leaves(state)}

        def own(value: Tensor) -> Tensor:
            """Compute what is an old leaf anew, or it would be read after that leaf is overwritten: a clone is dropped."""
            if value.untyped_storage()._cdata not in held:
                return value
            return value.neg().neg() if value.is_floating_point() else value.bitwise_not().bitwise_not()

        new = tree.map(lambda old, value: value if value is old else own(value), state, new)
        owned = tree.map(own, metrics)
        tree.map(lambda old, value: old if value is old else old.copy_(value), state, new)
        return owned

    return run


def compile_function(
    function: Callable[..., Tree],
    *examples: Tree,
    blocks: bool = False,
    keep: bool = True,
    say: Callable[[str], None] | None = None,
) -> Program:
    """Compile a function of trees of tensors.

    Parameters
    ----------
    function
        What is compiled, pure but for what it writes into its arguments at its end.
    *examples
        Arguments; every later call has the same structure, shapes, types and devices.
    blocks
        Compile each block of a model once, however many there are, instead of the whole as one piece: compiling takes as
        long at any depth, and only what lies across a block's border is not fused.
    keep
        Whether a kept program is used, and a new one kept.
    say
        Told what is being done, in a few words.

    Returns
    -------
    The program.
    """
    leaves, structure = tree.flatten(examples)
    if any(leaf.device.type != "cpu" for leaf in leaves):
        return _elsewhere(function, leaves, structure, blocks)
    library = _library() if keep else None
    key = _key(function, leaves, structure, blocks) if library else ""
    package = library.find(key) if library and key else None
    if package is not None:
        return _loaded(package, found=True)
    collecting = gc.isenabled()
    gc.disable()  # the compiler makes millions of objects that live on: looking through them takes a tenth of its time
    try:
        return _build(function, leaves, structure, blocks, library, key, say or (lambda text: None))
    finally:
        if collecting:
            gc.enable()


def _library() -> Library | None:
    try:
        return Library(cache_directory("programs"))
    except UsageError:  # no place to keep anything
        return None


def _loaded(package: Package, *, found: bool) -> Program:
    pieces = {path.stem: load(path) for path in package.folder.glob("*.so")}
    return Program(package.plan.bind(pieces), package.structure, package.digest, found)


def _build(
    function: Callable[..., Tree],
    leaves: list[Tensor],
    structure: Any,
    blocks: bool,
    library: Library | None,
    key: str,
    say: Callable[[str], None],
) -> Program:
    from craft.engine.lower import decompositions, to_cpp

    own = library or Library(Path(os.environ.get("TMPDIR", "/tmp")) / f"craft-{os.getuid()}")
    with own.building() as folder:
        builder = Builder(folder, own.folder.with_name("headers"))
        say("compiling: tracing")
        regions = Regions("block", decompositions()) if blocks else None
        plan, pieces, returned = _traced(function, leaves, structure, regions)
        # the longest first: the C++ compiler works on one piece while the next is being written
        ordered = sorted(pieces.items(), key=lambda item: -len(item[1].graph.nodes))
        for number, (name, graph) in enumerate(ordered, start=1):
            say(f"compiling: piece {number} of {len(pieces)}")
            source = to_cpp(graph, profile=policy.current().profile)
            builder.build(name, source.code, source.outputs)
        say("compiling: waiting for the C++ compiler")
        builder.finish()
        if library is not None and key:
            return _loaded(library.store(key, folder, plan, returned), found=False)
        loaded = {name: load(folder / f"{name}.so") for name in pieces}
    return Program(plan.bind(loaded), tree.flatten(returned)[1], "", False)


def _traced(
    function: Callable[..., Tree], leaves: list[Tensor], structure: Any, regions: Regions | None
) -> tuple[Plan, dict[str, Any], Tree]:
    """Trace a function and cut it into pieces; return the plan, the pieces' graphs and the tree it returns."""
    from torch.fx.experimental.proxy_tensor import make_fx

    from craft.engine.lower import decompositions

    made: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, out_structure = tree.flatten(function(*tree.unflatten(structure, values)))
        made[:] = [out_structure]
        return outputs

    with torch.no_grad(), warnings.catch_warnings(), policy.using(wrap=regions.wrap if regions else None):
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        graph = make_fx(flat, decompositions(), tracing_mode="fake")(*leaves)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        plan, pieces = make_plan(graph, "piece")
        if regions is not None:
            used = {entry.piece for entry in plan.calls if hasattr(entry, "piece")}
            pieces |= {name: part for name, part in regions.graphs.items() if name in used}
            regions.forget()
    return plan, pieces, tree.unflatten(made[0], list(range(len(plan.outputs))))


def _elsewhere(function: Callable[..., Tree], leaves: list[Tensor], structure: Any, blocks: bool) -> Program:
    """Compile for another device by torch's own ways, which keep what they compile in a cache of their own."""
    from craft.engine.lower import decompositions, to_program

    regions = Regions("block", decompositions()) if blocks else None
    plan, pieces, returned = _traced(function, leaves, structure, regions)
    return Program(plan.bind({name: to_program(graph) for name, graph in pieces.items()}), tree.flatten(returned)[1], "", False)


def _key(function: Callable[..., Tree], leaves: list[Tensor], structure: Any, blocks: bool) -> str:
    """Hash everything that shapes a program; empty if that cannot be told."""
    shapes = [(tuple(leaf.shape), leaf.stride(), str(leaf.dtype), leaf.requires_grad) for leaf in leaves]
    current = policy.current()._replace(wrap=None)
    try:
        return fingerprint(function, str(structure), shapes, tuple(current), blocks, torch.get_num_threads(), *surroundings())
    except Unknown:
        return ""


@cache
def surroundings() -> tuple[str, ...]:
    """Return what else a program depends on: versions, the processor, Craft's own source, settings of the compiler."""
    source = Path(__file__).parent.parent
    files = [path.read_bytes() for path in sorted(source.rglob("*.py"))]
    kinds = ("TORCHINDUCTOR_", "AOT_INDUCTOR_")
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(kinds) and name != _CACHE)
    return (
        torch.__version__,
        platform.python_version(),
        _processor(),
        fingerprint(files),
        *settings,
        os.environ.get("CXX", ""),
    )


def _processor() -> str:
    """Name the processor and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
