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
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from craft import policy, tree
from craft.cache import cache_directory
from craft.engine.cut import make_plan
from craft.engine.fingerprint import Unknown, fingerprint
from craft.engine.native import Builder, load
from craft.engine.package import Library, Package
from craft.engine.plan import Call, Pieces, Plan
from craft.engine.region import Regions
from craft.engine.tracing import apart, trace
from craft.errors import UsageError
from craft.types import Metrics, Step, Tensor, Tree

__all__ = [
    "Program",
    "cache_compiled",
    "compile_function",
    "compile_step",
    "compiler_missing",
    "program_key",
    "surroundings",
    "trace_step",
]


Say: TypeAlias = Callable[[str], None]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_ONE = threading.RLock()
_BLOCK = "block"
"""What names of pieces that come again begin with."""
_OTHERWISE = True
"""Whether torch's own way is taken where ours fails; the tests say no, or they would not see that it does."""


class Program:
    """A compiled function of trees.

    Attributes
    ----------
    digest
        Hash of its compiled code; empty where it is not kept.
    found
        Whether it was loaded, not built.
    """

    def __init__(self, plan: Plan, pieces: Pieces, constants: Sequence[Tensor], returned: Any, given: _Given) -> None:
        self._run, self._constants, self._returned, self._given = plan.bind(pieces), list(constants), returned, given
        self.digest, self.found = "", False

    def __call__(self, *args: Tree) -> Any:
        """Run it on arguments of the structure, shapes, types and devices of the examples.

        Raises
        ------
        ValueError
            If the arguments are others.
        """
        leaves = self._given.leaves(args)
        with torch.no_grad():
            return tree.unflatten(self._returned, self._run(leaves + self._constants))


class _Given:
    """What a program is given: compiled code would read beyond the end of a smaller tensor."""

    def __init__(self, leaves: list[Tensor], structure: Any) -> None:
        self.structure, self.forms = structure, [_shape(leaf) for leaf in leaves]
        self.known: list[Tensor] = []

    def leaves(self, args: tuple[Tree, ...]) -> list[Tensor]:
        """Return the leaves of arguments, or refuse them."""
        leaves, structure = tree.flatten(args)
        if structure != self.structure:
            raise ValueError(f"got arguments of the structure {structure}; the program was compiled for {self.structure}")
        known = self.known
        for place, (leaf, form) in enumerate(zip(leaves, self.forms, strict=True)):
            if known and leaf is known[place]:  # a state that is written over
                continue
            if not isinstance(leaf, Tensor) or _shape(leaf) != form:
                self._refuse(args, place, leaf)
        self.known = leaves
        return leaves

    def _refuse(self, args: tuple[Tree, ...], place: int, leaf: Any) -> None:
        size, stride, dtype, device = self.forms[place]
        same = isinstance(leaf, Tensor) and (tuple(leaf.shape), leaf.dtype, leaf.device) == (size, dtype, device)
        if same and (0 in size or all(n == 1 or a == b for n, a, b in zip(size, leaf.stride(), stride, strict=True))):
            return  # the strides of an axis of one are nobody's concern
        got = _said(_shape(leaf)) if isinstance(leaf, Tensor) else repr(leaf)
        raise ValueError(f"got {got} at {tree.paths(args)[place]}; the program was compiled for {_said(self.forms[place])}")


_Form: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]


def _shape(leaf: Tensor) -> _Form:
    return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device


def _said(form: _Form) -> str:
    size, stride, dtype, device = form
    return f"{str(dtype).removeprefix('torch.')}{list(size)} of strides {list(stride)} on {device}"


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
    update: Step, state: Tree, batch: Tree, *, blocks: bool = False, keep: bool = True, say: Say | None = None
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
    traced = _traced(_written(update), _Given(*tree.flatten((state, batch))), blocks, lambda text: None)
    return traced.plan, traced.graphs


def _written(update: Step) -> Callable[[Tree, Tree], Metrics]:
    """Make of a pure step one that writes the new state into the old and returns the metrics."""

    def run(state: Tree, batch: Tree) -> Metrics:
        new, metrics = update(state, batch)
        leaves = tree.leaves(state)
        new = tree.map(lambda old, value: value if value is old else apart([value], leaves)[0], state, new)
        owned: Metrics = tree.map(lambda value: apart([value], leaves)[0], metrics)
        tree.map(lambda old, value: old if value is old else old.copy_(value), state, new)
        return owned

    return run


def compile_function(
    function: Callable[..., Tree],
    *examples: Tree,
    blocks: bool = False,
    keep: bool = True,
    say: Say | None = None,
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
    with _ONE:  # what is being traced is known to the whole process
        return _compile(function, examples, blocks=blocks, keep=keep, say=say or (lambda text: None))


def _compile(function: Callable[..., Tree], examples: tuple[Tree, ...], *, blocks: bool, keep: bool, say: Say) -> Program:
    leaves, structure = tree.flatten(examples)
    given = _Given(leaves, structure)
    if any(leaf.device.type != "cpu" for leaf in leaves):
        return _elsewhere(function, given, blocks)
    library = _library()
    key = _key(function, leaves, structure, blocks) if keep else ""
    package = library.find(key) if key else None
    if package is not None:
        with suppress(OSError):  # thrown away by another process just now
            return _loaded(package, given)
    with _uncollected(), ExitStack() as stack:
        failed, builder = None, None
        try:  # the headers are compiled while the function is traced
            folder = stack.enter_context(library.building())
            builder = stack.enter_context(Builder(folder, library.folder.with_name("headers")))
        except Exception as error:  # noqa: BLE001 - as below
            failed = error
        traced = _traced(function, given, blocks, say)
        try:
            if builder is None:
                raise failed or AssertionError
            return _built(traced, given, library, builder, key, say)
        except Exception as error:
            if not _OTHERWISE:
                raise
            say(f"compiling by torch's own ways, which takes longer: {str(error).splitlines()[0] if str(error) else error!r}")
            try:
                return _elsewhere(function, given, blocks)
            except Exception:  # noqa: BLE001 - nor does torch know a way: the first reason is the better one
                raise error from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage: the compiler makes millions of objects that live on, and a tenth of its time goes to seeing so."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _library() -> Library:
    """Return where programs are kept, or a place that ends with this process if there is none."""
    try:
        library = Library(cache_directory("programs"))
        with tempfile.TemporaryFile(dir=library.folder):
            return library
    except (UsageError, OSError):
        return Library(Path(_passing().name) / "programs")


@cache
def _passing() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="craft-")


def _loaded(package: Package, given: _Given) -> Program:
    names = {entry.piece for entry in package.plan.calls if isinstance(entry, Call)}
    pieces = {name: load(package.folder / f"{name}.so") for name in names}
    program = Program(package.plan, pieces, package.constants, package.structure, given)
    program.digest, program.found = package.digest, True
    return program


class _Traced(NamedTuple):
    """A function as a plan, graphs of its pieces, a tree of what it returns (with numbers for leaves), and its constants."""

    plan: Plan
    graphs: dict[str, Any]
    returned: Tree
    constants: list[Tensor]


def _built(traced: _Traced, given: _Given, library: Library, builder: Builder, key: str, say: Say) -> Program:
    """Build the pieces, and keep them where there is a key."""
    from craft.engine.lower import to_cpp

    # the longest first: the C++ compiler works on one piece while the next is being written
    ordered = sorted(traced.graphs.items(), key=lambda item: -len(item[1].graph.nodes))
    for number, (name, graph) in enumerate(ordered, start=1):
        say(f"compiling: piece {number} of {len(ordered)}")
        between = not name.startswith(_BLOCK)  # long where there are many leaves to update
        builder.build(name, *to_cpp(graph, profile=policy.current().profile), brief=between)
    say("compiling: waiting for the C++ compiler")
    builder.finish()
    pieces = {name: load(builder.directory / f"{name}.so") for name in traced.graphs}
    program = Program(traced.plan, pieces, traced.constants, tree.flatten(traced.returned)[1], given)
    if key:
        program.digest = library.store(key, builder.directory, traced.plan, traced.returned, traced.constants)
    return program


def _traced(function: Callable[..., Tree], given: _Given, blocks: bool, say: Say) -> _Traced:
    """Trace a function and cut it into pieces."""
    say("compiling: tracing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        from torch._subclasses.fake_tensor import FakeTensorMode

        from craft.engine.lower import decompositions

        table = decompositions()
    made: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, found = tree.flatten(function(*tree.unflatten(given.structure, values)))
        others = [value for value in outputs if not isinstance(value, Tensor)]
        if others:
            raise ValueError(f"got {others[0]!r} in what a program returns; expected tensors alone, as torch.tensor makes them")
        made[:] = [found]
        return outputs

    regions = Regions(_BLOCK, table) if blocks else None
    try:
        with torch.no_grad(), warnings.catch_warnings(), policy.using(wrap=regions.wrap if regions else None):
            warnings.simplefilter("ignore")
            with FakeTensorMode(allow_non_fake_inputs=True):  # one for each: which of them share memory here is chance
                examples = [torch.empty_strided(*form[:2], dtype=form[2], device=form[3]) for form in given.forms]
                graph, constants = trace(flat, examples, table)
            plan, pieces = make_plan(graph, "piece")
        if regions is not None:
            used = {entry.piece for entry in plan.calls if isinstance(entry, Call)}
            pieces |= {name: part for name, part in regions.graphs.items() if name in used}
    finally:
        if regions is not None:
            regions.forget()
    return _Traced(plan, pieces, tree.unflatten(made[0], list(range(len(plan.outputs)))), constants)


def _elsewhere(function: Callable[..., Tree], given: _Given, blocks: bool) -> Program:
    """Compile by torch's own ways, which keep what they compile in a cache of their own: for other devices."""
    from craft.engine.lower import to_program

    traced = _traced(function, given, blocks, lambda text: None)
    pieces = {name: to_program(graph) for name, graph in traced.graphs.items()}
    return Program(traced.plan, pieces, traced.constants, tree.flatten(traced.returned)[1], given)


def program_key(function: Callable[..., Tree], *examples: Tree) -> str:
    """Hash what shapes the program of a function: two of one key have one program; empty if that cannot be told."""
    return _key(function, *tree.flatten(examples), False)


def _key(function: Callable[..., Tree], leaves: list[Tensor], structure: Any, blocks: bool) -> str:
    """Hash everything that shapes a program; empty if that cannot be told."""
    shapes = [(tuple(leaf.shape), leaf.stride(), str(leaf.dtype), leaf.requires_grad) for leaf in leaves]
    current = policy.current()._replace(wrap=None)
    torchs = (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    about = (str(structure), shapes, tuple(current), blocks, *torchs, *_settings(), *surroundings())
    try:
        return fingerprint(function, *about, held=_held(tree.unflatten(structure, leaves)))
    except Unknown:
        return ""


def _held(examples: tuple[Tree, ...]) -> list[str]:
    """Return the paths of the hyperparameters in the states among the arguments."""
    return [path for value in examples for path in getattr(value, "hyper", ())]


def _settings() -> list[str]:
    """Return the settings of the compiler."""
    names = ("CXX", "CXXFLAGS", "CPATH", "ATEN_CPU_CAPABILITY", "DNNL_", "TORCHINDUCTOR_", "AOT_INDUCTOR_")
    return sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(names) and name != _CACHE)


@cache
def surroundings() -> tuple[str, ...]:
    """Return what else a program depends on: versions, the processor, Craft's own source."""
    files = [path.read_bytes() for path in sorted(Path(__file__).parent.parent.rglob("*.py"))]
    return (torch.__version__, platform.python_version(), _processor(), fingerprint(files))


def _processor() -> str:
    """Name the processor and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
