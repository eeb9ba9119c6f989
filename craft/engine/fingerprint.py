"""What a program is made of, as a hash: the function with all that it closes over, and the files its code comes from.

Two functions with one fingerprint trace to the same graph. What cannot be told apart by its content (an open file, a
generator, a large tensor on another device) has no fingerprint, and no program of it is kept.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from craft.types import Hyper, Tensor

__all__ = ["Unknown", "fingerprint"]

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, slice)
_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType)
_MADE = (types.FunctionType, types.MemberDescriptorType, types.GetSetDescriptorType)
"""What stands in a class without having been written there."""
_LARGEST = 1 << 26
"""Largest tensor, in bytes, that is hashed by content."""


class Unknown(TypeError):  # noqa: N818 - what it says
    """Something has no content to tell it by."""


def fingerprint(*values: Any, held: Collection[str] = ()) -> str:
    """Hash values by content: plain ones, trees, tensors, attrs values, functions with their closures and globals.

    Parameters
    ----------
    *values
        What is hashed.
    held
        Paths of the hyperparameters that are given to the function in its state: of these the constants do not count, but
        whether they are 0, which leaves a part out.

    Raises
    ------
    Unknown
        If something has no fingerprint; the message names it.
    """
    walk = _Walk(frozenset(held))
    for value in values:
        walk.enter(value)
    return walk.digest.hexdigest()


class _Walk:
    def __init__(self, held: frozenset[str]) -> None:
        self.held = held
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # an id stays one object's while the object lives

    def note(self, *words: object) -> None:
        for word in words:
            text = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.digest.update(len(text).to_bytes(8, "little") + text)

    def enter(self, value: Any) -> None:
        self.note(type(value).__qualname__)
        if isinstance(value, (enum.Enum, *_PLAIN)):
            self.note(repr(value))
        elif id(value) in self.seen:
            self.note("again", self.seen[id(value)])
        else:
            self.seen[id(value)] = len(self.seen)
            self.alive.append(value)
            self._content(value)

    def _content(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.MethodType):
            self.all((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self.all((value.func, value.args, value.keywords))
        elif isinstance(value, Mapping):
            self.all(value.items())
        elif isinstance(value, Hyper) and value.path in self.held:
            self.note("held", value.path, value.default == 0)
        elif isinstance(value, list | tuple):
            self.enter(type(value))
            self.all(value)
        elif isinstance(value, set | frozenset):
            self.note(*sorted(map(fingerprint, value)))
        elif isinstance(value, _BUILTIN):
            self.note(getattr(value, "__module__", ""), value.__qualname__)
            of = getattr(value, "__self__", None)
            if not isinstance(of, types.ModuleType) and not type(of).__module__.startswith("pybind11"):
                self.enter(of)
        else:
            self._object(value)

    def all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.enter(value)
        self.note("end")

    def _tensor(self, value: Tensor) -> None:
        self.note(tuple(value.shape), value.dtype, value.device, value.requires_grad)
        plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.nbytes > _LARGEST:
            raise Unknown(f"a closed-over tensor of shape {tuple(value.shape)} on {value.device}")
        held = value.detach().resolve_conj().resolve_neg().contiguous().view(-1)
        self.note(value.stride(), held.view(torch.uint8).numpy().tobytes() if value.numel() else b"")

    def _function(self, value: types.FunctionType) -> None:
        self.enter(value.__code__)
        self.all((value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            try:
                self.enter(cell.cell_contents)
            except ValueError:  # nothing has been put into it
                self.note("empty")
        module = sys.modules.get(value.__module__)
        if module is not None:
            self.enter(module)
        if module is None or vars(module) is not value.__globals__ or not _installed(module):
            names = _names(value.__code__)
            for name in sorted(names & value.__globals__.keys()):
                found = value.__globals__[name]
                self.note(name)
                self.enter(found)
                if isinstance(found, types.ModuleType) and not _installed(found) and not _ours(found):
                    self._looked_up(found, names)

    def _looked_up(self, module: types.ModuleType, names: set[str]) -> None:
        """Enter what a function may take from a module of the user's: it need not be what the file says."""
        held = vars(module)
        for name in sorted(names & held.keys()):
            if not isinstance(held[name], types.ModuleType):
                self.note(name)
                self.enter(held[name])

    def _code(self, value: types.CodeType) -> None:
        self.note(value.co_code, value.co_names, value.co_varnames, value.co_freevars)
        self.all(value.co_consts)

    def _module(self, value: types.ModuleType) -> None:
        file = getattr(value, "__file__", None)
        self.note(value.__name__)
        if file is None:
            return
        path = Path(file)
        try:
            if _installed(value):
                about = path.stat()
                self.note(about.st_size, about.st_mtime_ns)
            else:
                self.note(path.read_bytes())
        except OSError:
            raise Unknown(f"the file of the module {value.__name__}") from None

    def _class(self, value: type) -> None:
        self.note(value.__module__, value.__qualname__)
        for base in value.__mro__:
            module = sys.modules.get(base.__module__)
            if module is not None:
                self.enter(module)
            if module is None or not (_installed(module) or _ours(module)):
                self._methods(base)

    def _methods(self, value: type) -> None:
        """Enter what a class of the user's holds; one that was typed into an interpreter has no file."""
        for name, held in sorted(vars(value).items()):
            inner = getattr(held, "__func__", held)  # of a classmethod or a staticmethod
            written = isinstance(inner, types.FunctionType) and not inner.__code__.co_filename.startswith("<")
            if written or (isinstance(inner, types.FunctionType) and _typed(value)):
                self.note(name)
                self.enter(inner)
            elif isinstance(inner, property):
                self.note(name)
                self.all((inner.fget, inner.fset, inner.fdel))
            elif isinstance(inner, functools.cached_property):
                self.note(name)
                self.enter(inner.func)
            elif name == "_abc_impl":
                continue
            elif not isinstance(inner, _MADE) and not name.startswith("__") and name not in getattr(value, "_fields", ()):
                self.note(name)
                self.enter(inner)

    def _object(self, value: Any) -> None:
        self.enter(type(value))
        if attrs.has(type(value)):
            self.all((field.name, self._field(value, field)) for field in attrs.fields(type(value)))
            return
        held = dict(getattr(value, "__dict__", {}))
        held |= {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
        library = type(value).__module__.partition(".")[0]
        if library == "torch" and type(value).__module__ == "torch._ops":
            self.note(str(value))
        elif (not held and not hasattr(value, "__dict__")) or library in ("builtins", "_io", "_thread", "threading", "torch"):
            raise Unknown(f"a {type(value).__module__}.{type(value).__qualname__}")
        else:
            self.all(held.items())

    def _field(self, value: Any, field: Any) -> Any:
        """Return a field's content; Craft's own read the tunable ones by `hyper`, and look at 0 alone themselves."""
        found = getattr(value, field.name, None)
        own = type(value).__module__.partition(".")[0] == "craft"
        return found == 0 if self.held and own and "tunable" in field.metadata else found


def _slots(cls: type) -> list[str]:
    """Return the names of what instances hold outside their dictionary."""
    members = types.MemberDescriptorType
    return [name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, members)]


def _names(code: types.CodeType) -> set[str]:
    """Return what a function and the functions inside it may look up among the globals."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


@functools.cache
def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{Path(paths[name])}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _typed(value: type) -> bool:
    """Tell whether a class was typed into an interpreter or a notebook."""
    return getattr(sys.modules.get(value.__module__), "__file__", None) is None


def _ours(module: types.ModuleType) -> bool:
    """Tell whether a module is of Craft, whose files are known as they are."""
    return module.__name__.partition(".")[0] == "craft"


def _installed(module: types.ModuleType) -> bool:
    """Tell whether a module is an installed library, which its version stands for; Craft's own files never are."""
    file = getattr(module, "__file__", None)
    if file is None:  # written in C, or a session of an interpreter or a notebook
        return module.__name__ != "__main__" and getattr(module, "__spec__", None) is not None
    return not _ours(module) and str(Path(file)).startswith(_folders())
