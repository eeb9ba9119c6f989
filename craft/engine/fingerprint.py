"""What a program is made of, as a hash: the function with all that it closes over, and the files its code comes from.

Two functions with one fingerprint trace to the same graph. What cannot be told apart by its content (an open file, a
generator, a large tensor on another device) has no fingerprint, and no program of it is kept.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from craft.types import Tensor

__all__ = ["Unknown", "fingerprint"]

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, slice)
_LARGEST = 1 << 26
"""Largest tensor, in bytes, that is hashed by content."""


class Unknown(TypeError):
    """Something has no content to tell it by."""


def fingerprint(*values: Any) -> str:
    """Hash values by content: plain ones, trees, tensors, attrs values, functions with their closures and globals.

    Raises
    ------
    Unknown
        If something has no fingerprint; the message names it.
    """
    walk = _Walk()
    for value in values:
        walk.enter(value)
    return walk.digest.hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # an id stays one object's while the object lives

    def note(self, *words: object) -> None:
        for word in words:
            text = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.digest.update(len(text).to_bytes(8, "little") + text)

    def enter(self, value: Any) -> None:
        self.note(type(value).__qualname__)
        if isinstance(value, enum.Enum):
            self.note(value)
        elif isinstance(value, _PLAIN):
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
        elif isinstance(value, list | tuple):
            self.enter(type(value))
            self.all(value)
        elif isinstance(value, set | frozenset):
            self.note(*sorted(map(repr, value)))
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | types.WrapperDescriptorType):
            self.note(getattr(value, "__module__", ""), value.__qualname__)
        else:
            self._object(value)

    def all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.enter(value)
        self.note("end")

    def _tensor(self, value: Tensor) -> None:
        self.note(tuple(value.shape), value.dtype, value.device)
        if value.device.type != "cpu" or value.nbytes > _LARGEST or type(value) not in (Tensor, torch.nn.Parameter):
            raise Unknown(f"a closed-over tensor of shape {tuple(value.shape)} on {value.device}")
        self.note(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")

    def _function(self, value: types.FunctionType) -> None:
        self.enter(value.__code__)
        self.all((value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            self.enter(cell.cell_contents)
        module = sys.modules.get(value.__module__)
        if module is not None:
            self.enter(module)
        if module is None or not _installed(module):
            named = _names(value.__code__)
            self.all((name, value.__globals__[name]) for name in sorted(named & value.__globals__.keys()))

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

    def _object(self, value: Any) -> None:
        self.enter(type(value))
        if attrs.has(type(value)):
            self.all((field.name, getattr(value, field.name, None)) for field in attrs.fields(type(value)))
            return
        held = getattr(value, "__dict__", None)
        if held is None or type(value).__module__.partition(".")[0] in ("builtins", "_io", "threading", "torch"):
            called = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
            if called is None and "torch._ops" not in type(value).__module__:
                raise Unknown(f"a {type(value).__module__}.{type(value).__qualname__}")
            self.note(called or str(value))
            return
        self.all(held.items())


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
    return tuple(str(Path(paths[name])) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _installed(module: types.ModuleType) -> bool:
    """Tell whether a module is an installed library, which its version stands for; Craft's own files never are."""
    file = getattr(module, "__file__", None)
    return module.__name__.partition(".")[0] != "craft" and (file is None or str(Path(file)).startswith(_folders()))
