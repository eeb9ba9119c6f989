"""The house: imports go downward, libraries stay in their rooms, tests mirror the code, and what is described is described."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "craft").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))

LAYERS = (
    "types tree rng param config policy errors run cache __init__",
    "nn optim grad losses schedule",
    "step mixers models generate",
    "data store checkpoint evaluate track engine record",
    "hooks equip books opening train replay saving writing interrupt resume profile report sweep",
    "cli __main__",
)
"""Rooms from the ground up; a room knows its own layer and the ones below."""

CONFINED = {
    "wandb": ("track/wandb.py", "track/dashboard.py"),
    "wandb_workspaces": ("track/dashboard.py",),
    "tensorboard": ("track/tensorboard.py",),
    "tyro": ("cli/",),
    "cattrs": ("config.py", "config/"),
    "optree": ("tree.py",),
    "safetensors": ("checkpoint.py",),
    "tokenizers": ("data/tokenizer/subword.py",),
    "sentencepiece": ("data/tokenizer/sentence.py",),
    "datasets": ("data/source.py",),
    "pyarrow": ("data/formats.py",),
    "zstandard": ("data/packed.py",),
    "rich": ("track/",),
    "lm_eval": ("evaluate/",),
    "matplotlib": ("report/",),
}
"""Library -> the only places that may import it, also inside functions."""

VAGUE = {"utils", "util", "common", "misc", "helpers", "helper", "tools", "stuff"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "craft").as_posix()


def room(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def layer(name: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if name in names.split()]
    assert found, f"the room {name} has no layer; give it one in this file"
    return found[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what is imported at run time, as dotted names; `from a import b` gives a.b."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def upward(path: Path, tree: ast.AST) -> list[str]:
    """Return the imports of a file that do not go downward."""
    relative = path.relative_to(ROOT / "craft")
    own = relative.parts[0].removesuffix(".py")
    return [
        f"{relative.as_posix()}:{line} imports {name}"
        for name, line in imports(tree)
        if name.split(".")[0] == "craft" and layer(room(name) if is_room(name) else "__init__") > layer(own)
    ]


def is_room(name: str) -> bool:
    place = ROOT / "craft" / room(name)
    return place.is_dir() or place.with_suffix(".py").is_file()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downward(path):
    assert upward(path, parsed(path)) == []


def test_an_import_upward_is_seen():
    tree = ast.parse("from craft import hooks\nimport craft.train\nfrom craft.cli import find\nfrom craft import tree\n")
    assert [line.partition(" ")[0] for line in upward(ROOT / "craft" / "optim" / "adam.py", tree)] == [
        "optim/adam.py:1", "optim/adam.py:2", "optim/adam.py:3"
    ]  # fmt: skip
    assert upward(ROOT / "craft" / "cli" / "entry.py", tree) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_craft_knows_no_experiment_and_libraries_stay_in_their_rooms(path):
    for name, line in imports(parsed(path)):
        library = "tensorboard" if name.startswith("torch.utils.tensorboard") else name.split(".")[0]
        assert library not in ("experiments", "tests"), f"line {line}"
        allowed = CONFINED.get(library)
        assert allowed is None or name_of(path).startswith(allowed), f"line {line} imports {name}"


def test_each_confined_library_is_where_it_is_said_to_be():
    used = {name.split(".")[0] for path in FILES for name, _ in imports(parsed(path))}
    assert {"wandb", "tyro", "cattrs", "optree", "safetensors", "rich"} <= used


def test_names_say_what_is_in_a_file():
    for path in [*FILES, *EXPERIMENTS, *TOOLS, *(ROOT / "tests").rglob("*.py")]:
        words = path.relative_to(ROOT).as_posix().removeprefix("tests/").removeprefix("tools/").split("/")
        assert not {word.removesuffix(".py").removeprefix("test_") for word in words} & VAGUE, path


def test_nothing_that_is_installed_knows_the_tools():
    for path in [*FILES, *EXPERIMENTS]:
        assert not [name for name, _ in imports(parsed(path)) if name.split(".")[0] == "tools"], path


WHOLE = {"house", "readme"}
"""Tests of more than one room."""


def about(path: Path) -> str:
    """Say what is wrong with the place of a test; empty if it mirrors a file or a room."""
    parts = path.relative_to(ROOT / "tests").parts
    subject = path.stem.removeprefix("test_")
    if parts[0] == "experiments":
        known = {file.stem for file in EXPERIMENTS} | {"experiments"}
        return "" if subject in known else f"there is no experiment {subject}"
    folder = (ROOT if parts[0] == "tools" else ROOT / "craft").joinpath(*parts[:-1])
    if not folder.is_dir():
        return f"there is no room {'/'.join(parts[:-1])}"
    there = (folder / f"{subject}.py").is_file() or (folder / subject).is_dir()
    inside = len(parts) > 1  # a room is tested by subject, too: its contract, its faults
    return "" if there or inside or subject in WHOLE else f"there is no craft/{'/'.join(parts[:-1])}/{subject}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.relative_to(ROOT / "tests").as_posix()
)
def test_tests_mirror_the_code(path):
    assert about(path) == ""


def test_a_test_of_nothing_is_seen():
    assert about(ROOT / "tests" / "test_nothing.py") == "there is no craft//nothing"
    assert about(ROOT / "tests" / "nowhere" / "test_x.py") == "there is no room nowhere"
    assert about(ROOT / "tests" / "tools" / "nowhere" / "test_x.py") == "there is no room tools/nowhere"


def is_attrs(node: ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).startswith("attrs.") for decorator in node.decorator_list)


def undescribed(tree: ast.AST) -> list[str]:
    """Return the attrs fields without a docstring under them; what begins with an underscore is the file's own affair."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or not is_attrs(node) or node.name.startswith("_"):
            continue
        for field, below in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                said = (
                    isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
                )
                name = ast.unparse(field.target)
                found += [] if said or name.startswith("_") else [f"{node.name}.{name}"]
    return found


@pytest.mark.parametrize("path", [*FILES, *EXPERIMENTS, *TOOLS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_field_says_what_it_is(path):
    assert undescribed(parsed(path)) == []


def test_a_bare_field_is_seen():
    text = '@attrs.frozen\nclass A:\n    """A."""\n    x: int = 0\n    """X."""\n    y: int = 1\n'
    assert undescribed(ast.parse(text)) == ["A.y"]


METHODS = [path for room in ("optim", "grad", "mixers") for path in FILES if name_of(path).startswith(f"{room}/")]
OURS = {"__init__.py", "compose.py", "routing.py", "moments.py", "recipes.py", "accumulate.py", "reverse.py"}
"""Files of those rooms that publish no method of somebody's."""


@pytest.mark.parametrize("path", [path for path in METHODS if path.name not in OURS], ids=name_of)
def test_a_published_method_names_its_source(path):
    doc = path.read_text(encoding="utf-8")
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|\b(19|20)\d\d\b", doc)


@pytest.mark.parametrize("path", [*FILES, *EXPERIMENTS, *TOOLS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_file_opens_with_a_sentence(path):
    doc = ast.get_docstring(parsed(path))
    assert doc, "a file opens with a sentence"
