"""Durable writes: whole under every failed operation, every kill and every legal outcome of a power cut."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import store

SetHook = Callable[[Any], None]

OLD = {"a.bin": b"old" * 500, "b.bin": b""}
NEW = {"a.bin": b"new" * 700, "c.bin": bytes(range(256))}


def content(directory: Path) -> dict[str, bytes]:
    store.verify(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != store.MANIFEST}


def publish_old(parent: Path) -> None:
    store.publish(parent / "thing", OLD, {"n": 1})


def publish_new(parent: Path) -> None:
    files: dict[str, Any] = {"a.bin": NEW["a.bin"], "c.bin": lambda path: path.write_bytes(NEW["c.bin"])}
    store.publish(parent / "thing", files, {"n": 2})


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> SetHook:
    return lambda function: monkeypatch.setattr(store, "HOOK", function)


def count_operations(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> list[str]:
    seen: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(store, "HOOK", lambda name, path, detail: seen.append(name))
        action()
    return seen


class Failing:
    """Raises at the n-th operation, and at all later ones if the disk is gone for good."""

    def __init__(self, n: int, code: int, forever: bool) -> None:
        self.left, self.code, self.forever = n, code, forever

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        self.left -= 1
        if self.left == 0 or (self.forever and self.left < 0):
            raise OSError(self.code, os.strerror(self.code), str(path))


def test_write_replaces_and_honours_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    former = os.umask(0o027)
    try:
        store.write(path, "old\r\n")
        store.write(path, "é\n")
        store.publish(tmp_path / "d", {"x": private}, {})
    finally:
        os.umask(former)
    assert path.read_bytes() == "é\n".encode()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "d" / "x").stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["config.json", "d"]


def private(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


@pytest.mark.parametrize("n", [2, 3])
def test_a_failure_leaves_no_litter(tmp_path: Path, hook: SetHook, n: int) -> None:
    acts: list[Callable[[], None]] = [lambda: store.write(tmp_path / "file", b"x"), lambda: publish_new(tmp_path)]
    for act in acts:
        hook(Failing(n, errno.ENOSPC, False))
        with pytest.raises(OSError, match="No space"):
            act()
        assert os.listdir(tmp_path) == []


def test_write_leaves_an_open_mapping_of_the_former_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    store.write(path, b"old")
    with path.open("rb") as file:
        store.write(path, b"new!")
        assert file.read() == b"old"


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    store.write_json(path, {"b": (1, 2.5, None, True), "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  "a": "é"\n}\n'
    store.write_json(path, {"b": 1, "a": "\ud800"}, sort=True)
    assert json.loads(path.read_bytes().decode("utf-8")) == {"a": "\ud800", "b": 1}
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index('"b"')


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), {1}, {1: 2}, object(), b"x"])
def test_json_refuses_what_it_cannot_say_and_names_the_place(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"at deep\.1"):
        store.write_json(tmp_path / "x.json", {"deep": [0, bad]})
    assert os.listdir(tmp_path) == []


def test_publish_is_verified_and_says_what_it_holds(tmp_path: Path) -> None:
    path = store.publish(tmp_path / "deep" / "thing", NEW, {"step": 3})
    manifest = store.verify(path)
    assert manifest["step"] == 3
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {"a.bin": 2100, "c.bin": 256}
    assert content(path) == NEW


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one = store.publish(tmp_path / "one", NEW, {"x": 1, "y": {"b": 1, "a": 2}})
    time.sleep(0.01)
    two = store.publish(tmp_path / "elsewhere" / "two", dict(reversed(NEW.items())), {"y": {"a": 2, "b": 1}, "x": 1})
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", store.MANIFEST, "..", "a\\b", "C:x"])
def test_publish_takes_plain_names_only(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="file name"):
        store.publish(tmp_path / "thing", {name: b""}, {})
    assert os.listdir(tmp_path) == []


def test_publish_refuses_keys_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'files' or 'seal'"):
        store.publish(tmp_path / "thing", {}, {"seal": 1})


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("replacing", [False, True])
def test_publish_is_whole_after_a_failure_of_any_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: SetHook, replacing: Any, code: Any, forever: Any
) -> None:
    parent = tmp_path / "probe"
    if replacing:
        publish_old(parent)
    operations = count_operations(monkeypatch, lambda: publish_new(parent))
    assert {"mkdir", "open", "write", "fill", "fsync", "fsync_dir", "rename"} <= set(operations)
    for n in range(1, len(operations) + 1):
        check_failure(tmp_path / str(n), hook, Failing(n, code, forever), replacing)


def check_failure(parent: Path, hook: SetHook, failing: Failing, replacing: bool) -> None:
    parent.mkdir()
    if replacing:
        publish_old(parent)
    hook(failing)
    try:
        publish_new(parent)
        failed = None
    except OSError as error:
        failed = error.errno
    hook(None)
    store.sweep_litter(parent)
    assert failed in (None, failing.code)
    allowed = [NEW] if failed is None else [NEW, OLD] if replacing else [NEW, None]
    assert (content(parent / "thing") if (parent / "thing").exists() else None) in allowed
    assert set(os.listdir(parent)) <= {"thing"}
    publish_new(parent)
    assert content(parent / "thing") == NEW


@pytest.mark.parametrize("name", ["write", "remove"])
def test_write_and_remove_are_whole_after_a_failure_of_any_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: SetHook, name: Any
) -> None:
    def act(parent: Path) -> None:
        store.write(parent / "file", b"new") if name == "write" else store.remove(parent / "thing")

    prepare(tmp_path / "probe")
    operations = count_operations(monkeypatch, lambda: act(tmp_path / "probe"))
    for n in range(1, len(operations) + 1):
        parent = tmp_path / str(n)
        prepare(parent)
        hook(Failing(n, errno.EIO, False))
        with pytest.raises(OSError, match="Input/output"):
            act(parent)
        hook(None)
        store.sweep_litter(parent)
        assert (parent / "file").read_bytes() in (b"old", b"new")
        assert not (parent / "thing").exists() or content(parent / "thing") == OLD
        assert set(os.listdir(parent)) <= {"file", "thing"}


def prepare(parent: Path) -> None:
    parent.mkdir()
    store.write(parent / "file", b"old")
    publish_old(parent)


CHILD = """
import os, signal, sys
from pathlib import Path
from craft import store
assert "torch" not in sys.modules
root, points = Path(sys.argv[1]), sys.argv[2:]
def kill_at(n):
    def hook(name, path, detail):
        nonlocal n
        n -= 1
        if n == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return hook
for n in map(int, points):
    child = os.fork()
    if child == 0:
        store.HOOK = kill_at(n)
        new = {"a.bin": b"new" * 700, "c.bin": lambda path: path.write_bytes(bytes(range(256)))}
        store.publish(root / str(n) / "thing", new, {"n": 2})
        store.write(root / str(n) / "file", b"new")
        store.remove(root / str(n) / "gone")
        os._exit(0)
    print(n, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_a_process_killed_before_any_operation_leaves_old_or_new(tmp_path: Path) -> None:
    total = 60
    for n in range(1, total + 1):
        prepare(tmp_path / str(n))
        store.publish(tmp_path / str(n) / "gone", OLD, {})
    points = [str(n) for n in range(1, total + 1)]
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[1])}
    child = [sys.executable, "-c", CHILD, str(tmp_path), *points]
    done = subprocess.run(child, env=environment, capture_output=True, text=True, check=True)
    codes = [int(line.split()[1]) for line in done.stdout.splitlines()]
    killed = codes.count(-signal.SIGKILL)
    assert codes == [-signal.SIGKILL] * killed + [0] * (total - killed)
    assert 25 < killed < total
    outcomes = [survey(tmp_path / point) for point in points]
    assert outcomes[0] == (False, False, True)
    assert outcomes[-1] == (True, True, False)
    assert all(later[0] >= earlier[0] for earlier, later in itertools.pairwise(outcomes))


def survey(parent: Path) -> tuple[bool, bool, bool]:
    store.sweep_litter(parent)
    thing = content(parent / "thing")
    assert thing in (OLD, NEW)
    assert (parent / "file").read_bytes() in (b"old", b"new")
    if (parent / "gone").exists():
        assert content(parent / "gone") == OLD
    assert set(os.listdir(parent)) <= {"thing", "file", "gone"}
    return thing == NEW, (parent / "file").read_bytes() == b"new", (parent / "gone").exists()


class Disk:
    """A model of a disk that loses what was not synced: contents by file, names by directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[str, Path, Any]] = []

    def __call__(self, name: str, path: Path, detail: Any) -> None:
        self.log.append((name, path, detail))

    def crash(self, length: int, lose: random.Random, target: Path) -> None:
        """Rebuild what a power cut after `length` operations may leave: any unsynced content or rename may be lost or torn."""
        contents: dict[Path, bytes] = {}
        synced: set[Path] = set()
        named: set[Path] = set()
        renames: list[tuple[Path, Path]] = []
        for name, path, detail in self.log[:length]:
            if name == "write":
                contents[path] = detail
            elif name == "fsync":
                synced.add(path)
            elif name == "rename":
                renames.append((path, detail))
            elif name == "fsync_dir" and path != self.root:
                named |= {known for known in contents if known.parent == path}
            elif name == "fsync_dir":
                renames = [
                    (source, place) for source, place in renames if not self.settle(contents, (synced, named), source, place)
                ]
        for source, place in renames[: lose.randint(0, len(renames))]:  # a journal keeps the order of names
            self.settle(contents, (synced, named), source, place)
        for path, data in contents.items():
            if path not in named and lose.random() < 0.5:
                continue
            place = target / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data if path in synced else data[: lose.choice([0, len(data) // 2, len(data)])])

    @staticmethod
    def settle(contents: dict[Path, bytes], marks: tuple[set[Path], ...], source: Path, place: Path) -> bool:
        for path in [path for path in contents if path == source or source in path.parents]:
            moved = place / path.relative_to(source) if path != source else place
            contents[moved] = contents.pop(path)
            for marked in marks:
                if path in marked:
                    marked.add(moved)
        return True


def test_every_power_cut_leaves_old_or_new(tmp_path: Path, hook: SetHook) -> None:
    assert cut_power(tmp_path, hook) == set()


def test_the_power_cut_would_show_a_missing_sync(tmp_path: Path, hook: SetHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_fsync", lambda descriptor, path: None)
    assert "corrupt" in cut_power(tmp_path, hook)


def test_the_power_cut_would_show_a_missing_sync_of_a_directory(
    tmp_path: Path, hook: SetHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, parent = store._fsync_directory, tmp_path / "parent"
    monkeypatch.setattr(store, "_fsync_directory", lambda path: None if path == parent / "real" else sync(path))
    assert "lost after success" in cut_power(parent, hook)
    parent = tmp_path / "inner"
    monkeypatch.setattr(store, "_fsync_directory", lambda path: sync(path) if path == parent / "real" else None)
    assert "corrupt" in cut_power(parent, hook)


def cut_power(tmp_path: Path, hook: SetHook) -> set[str]:
    disk = Disk(tmp_path / "real")
    hook(disk)
    store.publish(disk.root / "thing", OLD, {})
    first = len(disk.log)
    store.publish(disk.root / "thing", NEW, {})
    hook(None)
    last = next(i for i, (name, path, _) in reversed(list(enumerate(disk.log))) if name == "unlink" or i == len(disk.log) - 1)
    commit = max(i for i, (name, path, _) in enumerate(disk.log[: last + 1]) if name == "rename") + 2
    found = set()
    for length in range(first, len(disk.log)):
        for seed in range(8):
            target = tmp_path / f"crash-{length}-{seed}"
            disk.crash(length, random.Random(seed), target)
            store.sweep_litter(target)
            try:
                state = content(target / "thing")
            except store.Corrupt:
                found.add("corrupt")
                continue
            assert state in (OLD, NEW)
            if length >= commit and state == OLD:
                found.add("lost after success")
    return found


def damage(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        bit = chance.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        return f"bit {bit} of {path.name}"
    size = chance.randrange(len(data))
    path.write_bytes(data[:size])
    return f"{path.name} cut to {size}"


def test_two_hundred_random_flips_and_cuts_are_detected(tmp_path: Path) -> None:
    chance = random.Random(0)
    manifest = {"step": 12, "memory": {"best": 1.5e-05, "text": "é"}}
    store.publish(tmp_path / "whole", NEW, manifest)
    for case in range(200):
        copy = tmp_path / str(case)
        shutil.copytree(tmp_path / "whole", copy)
        what = damage(copy / chance.choice(sorted(os.listdir(copy))), chance)
        with pytest.raises(store.Corrupt, match=str(copy)):
            pytest.fail(f"{what} was not seen: {store.verify(copy)}")


@pytest.mark.parametrize("name", ["a.bin", "c.bin", store.MANIFEST])
@pytest.mark.parametrize("fault", ["missing", "empty"])
def test_a_missing_or_empty_file_is_named(tmp_path: Path, name: Any, fault: Any) -> None:
    path = store.publish(tmp_path / "thing", NEW, {})
    (path / name).unlink()
    if fault == "empty":
        (path / name).touch()
    with pytest.raises(store.Corrupt, match=name):
        store.verify(path, hashes=False)


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"files": []}', '{"files": {"../x": {"size": 0, "sha256": ""}}}', "[" * 10**5]
)
def test_a_hostile_manifest_is_corrupt(tmp_path: Path, text: Any) -> None:
    (tmp_path / store.MANIFEST).write_text(text)
    with pytest.raises(store.Corrupt, match=store.MANIFEST):
        store.verify(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", store.MANIFEST])
def test_a_sealed_manifest_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"")
    path = store.publish(tmp_path / "thing", {}, {})
    entry = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (path / store.MANIFEST).write_bytes(store._sealed({"files": {name: entry}}))
    with pytest.raises(store.Corrupt, match="never writes"):
        store.verify(path)


def test_a_failed_replacement_puts_the_former_directory_back_at_once(tmp_path: Path, hook: SetHook) -> None:
    publish_old(tmp_path)
    renames = 0

    def fail_second_rename(name: str, path: Path, detail: Any) -> None:
        nonlocal renames
        renames += name == "rename"
        if name == "rename" and renames == 2:
            raise OSError(errno.EIO, "Input/output error")

    hook(fail_second_rename)
    with pytest.raises(OSError, match="Input/output"):
        publish_new(tmp_path)
    hook(None)
    assert os.listdir(tmp_path) == ["thing"]
    assert content(tmp_path / "thing") == OLD


def test_nothing_is_deleted_before_the_new_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_old(tmp_path)
    replaced = count_operations(monkeypatch, lambda: publish_new(tmp_path))
    assert replaced[-6:] == ["rename", "fsync_dir", "unlink", "unlink", "unlink", "rmdir"]
    removed = count_operations(monkeypatch, lambda: store.remove(tmp_path / "thing"))
    assert removed == ["rename", "fsync_dir", "unlink", "unlink", "unlink", "rmdir"]


def test_a_copy_elsewhere_verifies(tmp_path: Path) -> None:
    path = store.publish(tmp_path / "thing", NEW, {"n": 1})
    shutil.copytree(path, tmp_path / "elsewhere" / "copy")
    assert content(tmp_path / "elsewhere" / "copy") == NEW


def test_sweep_takes_its_own_litter_only_and_puts_back_what_was_not_replaced(tmp_path: Path) -> None:
    publish_old(tmp_path)
    os.rename(tmp_path / "thing", tmp_path / ".old-thing-0123456789abcdef")
    (tmp_path / ".tmp-other").mkdir()
    (tmp_path / ".tmp-x-0123456789abcdef").mkdir()
    (tmp_path / ".tmp-x-0123456789abcdef" / "half").touch()
    (tmp_path / ".trash-x-0123456789abcdef").touch()
    assert [path.name for path in store.sweep_litter(tmp_path)] == [".tmp-x-0123456789abcdef", ".trash-x-0123456789abcdef"]
    assert sorted(os.listdir(tmp_path)) == [".tmp-other", "thing"]
    assert content(tmp_path / "thing") == OLD
    assert store.sweep_litter(tmp_path / "nowhere") == []


def test_a_journal_keeps_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with store.Journal(path) as journal:
        journal.append({"step": 1, "loss": 0.5, "text": "é\n\ud800"})
        assert store.read_journal(path) == [{"step": 1, "loss": 0.5, "text": "é\n\ud800"}]
        journal.sync()
    with store.Journal(path) as journal:
        journal.append({"step": 2})
        journal.close()
    assert [row["step"] for row in store.read_journal(path)] == [1, 2]


def test_numbers_that_are_not_finite_become_null_and_are_listed(tmp_path: Path) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"loss": float("nan"), "deep": {"x": [1.0, float("inf")]}, "ok": 1.0})
    line = (tmp_path / "j").read_text()
    row = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert row == {"loss": None, "deep": {"x": [1.0, None]}, "ok": 1.0, "nonfinite": ["deep.x.1", "loss"]}


@pytest.mark.parametrize("bad", [[1], "x", {"a": object()}, {1: 1}])
def test_a_journal_takes_objects_of_json_only(tmp_path: Path, bad: Any) -> None:
    with store.Journal(tmp_path / "j") as journal, pytest.raises(ValueError, match="expected"):
        journal.append(bad)
    assert (tmp_path / "j").read_bytes() == b""


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3), max_size=5),
    data=st.data(),
)
def test_a_torn_journal_loses_its_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, data: st.DataObject
) -> None:
    rows = [{key: value for key, value in row.items() if key != "nonfinite"} for row in rows]
    path = tmp_path_factory.mktemp("journal") / "j"
    with store.Journal(path) as journal:
        for row in rows:
            journal.append(row)
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size] + data.draw(st.sampled_from([b"", b"\0\0\0", b"\0\n", b"\xff"])) * (size == len(whole)))
    kept = whole[:size].count(b"\n")
    assert store.read_journal(path) == rows[:kept]
    store.Journal(path).close()
    assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, size) + 1]
    with store.Journal(path) as journal:
        journal.append({"last": 1})
    assert store.read_journal(path) == [*rows[:kept], {"last": 1}]


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(store.Corrupt, match="line 2"):
        store.read_journal(path)
    with pytest.raises(store.Corrupt, match="line 2"):
        store.Journal(path)
    assert path.read_bytes().count(b"\n") == 3


def test_cut_keeps_what_is_wanted_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"step":1}\n{"step": 2 }\n{"step":3}\n{"st')
    with store.Journal(path) as journal:
        journal.cut(lambda row: row["step"] <= 2)
        journal.append({"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"step": 2 }\n{"step": 3}\n'


def test_a_cut_that_fails_leaves_the_journal_whole_and_usable(tmp_path: Path, hook: SetHook) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"step": 1})
        hook(Failing(3, errno.ENOSPC, False))
        with pytest.raises(OSError, match="No space"):
            journal.cut(lambda row: False)
        hook(None)
        journal.append({"step": 2})
    assert [row["step"] for row in store.read_journal(tmp_path / "j")] == [1, 2]


def test_a_half_written_line_does_not_join_the_next(tmp_path: Path, hook: SetHook) -> None:
    with store.Journal(tmp_path / "j") as journal:
        journal.append({"step": 1})

        def tear(name: str, path: Path, detail: Any) -> None:
            if name == "write":
                with path.open("ab") as file:
                    file.write(detail[:4])
                raise OSError(errno.ENOSPC, "No space left on device")

        hook(tear)
        with pytest.raises(OSError, match="No space"):
            journal.append({"step": 2})
        hook(None)
        journal.append({"step": 3})
    assert [row["step"] for row in store.read_journal(tmp_path / "j")] == [1, 3]


HOLDER = """
import sys, time
from craft import store
with store.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_shuts_out_others_until_its_owner_dies(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[1])}
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(store.Busy, match=f"process {child.pid} on "), store.lock(tmp_path):
            pass
        child.kill()
        child.wait()
    with store.lock(tmp_path):
        pass


def test_a_lock_is_taken_once_and_given_back(tmp_path: Path) -> None:
    with store.lock(tmp_path / "run"):
        with pytest.raises(store.Busy, match=str(os.getpid())), store.lock(tmp_path / "run"):
            pass
        with pytest.raises(store.Busy), store.lock(tmp_path / "run"):
            pass
    with pytest.raises(RuntimeError), store.lock(tmp_path / "run"):
        raise RuntimeError
    with store.lock(tmp_path / "run"):
        pass


FORKER = """
import os, sys, time
from craft import store
with store.lock(sys.argv[1]):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    sys.stdin.readline()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_worker_that_outlives_its_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[1])}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORKER, str(tmp_path)], stdin=pipe, stdout=pipe, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        worker = int(owner.stdout.readline())
        owner.stdin.close()
        owner.wait()
        try:
            with store.lock(tmp_path):
                os.kill(worker, 0)
        finally:
            os.kill(worker, signal.SIGKILL)
