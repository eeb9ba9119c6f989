"""Packages: found by what they were made of, whole or not at all, and never in the way."""

import json
import os
import shutil
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch

from craft import tree
from craft.engine.package import Library, _form, _read_form
from craft.engine.plan import Call, Direct, Empty, Plan, View

PLAN = Plan(
    inputs=1,
    values=5,
    views=[View(0, "select", [0, 1], 1)],
    calls=[
        Empty([2, 3], "float32", "cpu", 2),
        Call("piece0", [0, 1, 2], [3], [2]),
        Direct("judge_chunks", [[3], {"constant": True}, {"constant": 2}], [4], []),
    ],
    outputs=[4, 0],
)


class Outer:
    """Where a class lives that is found by a longer name."""

    class Pair(NamedTuple):
        """Two."""

        a: object
        b: object


RETURNED = {"a": 0, "b": [1, (2, Outer.Pair(3, None)), {}], "c": ()}


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "programs")


def put(library, key="key", content=b"library", returned=RETURNED, constants=()):
    with library.building() as folder:
        (folder / "piece0.so").write_bytes(content)
        (folder / "rest.txt").write_bytes(b"not a library")
        return library.store(key, folder, PLAN, returned, constants)


def test_what_is_stored_is_found(library):
    constants = (torch.arange(6.0).view(2, 3).t(), torch.ones(1, 2).expand(3, 2), torch.zeros(0, 2), torch.tensor(True))
    digest = put(library, constants=constants)
    found = library.find("key")
    assert (found.plan, found.digest, found.structure) == (PLAN, digest, tree.flatten(RETURNED)[1])
    assert (found.folder / "piece0.so").read_bytes() == b"library"
    for value, expected in zip(found.constants, constants, strict=True):
        assert torch.equal(value, expected)
        assert (value.stride(), value.dtype) == (expected.stride(), expected.dtype)
    assert library.find("other") is None
    assert [path.name for path in library.folder.iterdir()] == ["key"]


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


BROKEN = {
    "library": lambda folder: (folder / "piece0.so").write_bytes(b"another"),
    "no library": lambda folder: (folder / "piece0.so").unlink(),
    "tensor": lambda folder: (folder / "0.tensor").write_bytes(bytes(8)),
    "plan": lambda folder: edit(folder / "package.json", '"arguments": [0, 1, 2]', '"arguments": [0, 1, 0]'),
    "form": lambda folder: edit(folder / "package.json", "Outer.Pair", "Outer.Paar"),
    "format": lambda folder: edit(folder / "package.json", '"format": ', '"format": 9'),
    "key": lambda folder: edit(folder / "package.json", '"key": "key"', '"key": "kee"'),
    "truncated": lambda folder: os.truncate(folder / "package.json", 100),
    "empty": lambda folder: os.truncate(folder / "package.json", 0),
    "no content": lambda folder: (folder / "package.json").unlink(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_whole_is_thrown_away_and_made_again(library, name):
    digest = put(library, constants=[torch.ones(2)])
    BROKEN[name](library.folder / "key")
    assert library.find("key") is None
    assert not (library.folder / "key").exists()
    assert put(library, constants=[torch.ones(2)]) == digest
    BROKEN[name](library.folder / "key")
    assert put(library, constants=[torch.ones(2)]) == digest  # without looking first
    assert library.find("key").digest == digest


def test_who_comes_second_finds_the_first(library):
    barrier = threading.Barrier(4)
    digests = []

    def build():
        with library.building() as folder:
            (folder / "piece0.so").write_bytes(b"library")
            barrier.wait(10)
            digests.append(library.store("key", folder, PLAN, RETURNED))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [library.find("key").digest] * 4
    assert [path.name for path in library.folder.iterdir()] == ["key"]


def local_class():
    class Local(NamedTuple):
        """Found by no name."""

        a: int

    return Local(0)


@pytest.mark.parametrize("returned", [local_class(), {1: 0}, OrderedDict(a=0)], ids=["local", "numbers", "ordered"])
def test_what_cannot_be_read_back_is_not_kept(library, returned):
    assert put(library, returned=returned) == ""
    assert list(library.folder.iterdir()) == []


@pytest.mark.parametrize("value", [0, None, (), [], {}, RETURNED, {"a": {"b": None}, "c": [None, 1]}])
def test_forms_are_read_back(value):
    assert _read_form(json.loads(json.dumps(_form(value)))) == tree.flatten(value)[1]


def test_the_least_recently_used_go_first(tmp_path):
    library = Library(tmp_path, largest=12500)
    for number, key in enumerate(("first", "second", "third")):
        put(library, key, bytes(3000))
        os.utime(tmp_path / key / "package.json", (number, number))
    assert library.find("first") is not None  # used just now
    put(library, "fourth", bytes(3000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "fourth", "third"]
    put(library, "large", bytes(13000))
    assert [path.name for path in tmp_path.iterdir()] == ["large"]  # what was made just now stays, whatever its size


def test_what_was_given_up_is_cleared_away(tmp_path):
    library = Library(tmp_path)
    old = time.time() - 4000
    for name, age in ((".building-old", old), (".building-new", None), ("half", old)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "piece0.so").touch()
        if age:
            os.utime(tmp_path / name, (age, age))
    put(library)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".building-new", "key"]


def test_a_builder_that_fails_leaves_nothing(library):
    with pytest.raises(KeyboardInterrupt), library.building() as folder:  # noqa: PT012
        (folder / "piece0.so").touch()
        raise KeyboardInterrupt
    assert list(library.folder.iterdir()) == []


def test_a_disk_that_is_full_or_gone_is_no_obstacle(library, monkeypatch):
    with library.building() as folder:
        (folder / "piece0.so").write_bytes(b"library")
        shutil.rmtree(folder)
        assert library.store("key", folder, PLAN, RETURNED) == ""
    assert library.find("key") is None
