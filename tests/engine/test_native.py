"""Native pieces: built beside each other, refused with the compiler's words, and their errors are Python's."""

import threading

import pytest
import torch

from craft.engine.native import Builder, BuildError, load

SOURCE = """
void inductor_entry_impl(AtenTensorHandle* inputs, AtenTensorHandle* outputs) {
  BODY
}
"""


@pytest.fixture(scope="module")
def headers():
    """Return the place of the headers that all tests share."""
    from craft.cache import cache_directory

    return cache_directory("headers")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory, headers):
    """Build two pieces at once: one gives back what it takes, one throws."""
    folder = tmp_path_factory.mktemp("pieces")
    with Builder(folder, headers) as builder:
        builder.build("same", SOURCE.replace("BODY", "outputs[0] = inputs[1]; outputs[1] = inputs[0];"), 2, 2)
        builder.build("throws", SOURCE.replace("BODY", 'throw std::runtime_error("it went wrong");'), 1, 0)
        builder.build("strange", SOURCE.replace("BODY", "throw 1;"), 0, 0)
        builder.finish()
    return {path.stem: load(path) for path in folder.glob("*.so")} | {"folder": folder}


def test_a_piece_takes_and_gives_tensors(pieces):
    a, b = torch.arange(3), torch.ones(2)
    first, second = pieces["same"]([a, b])
    assert (first.data_ptr(), second.data_ptr()) == (b.data_ptr(), a.data_ptr())
    assert sorted(path.name for path in pieces["folder"].iterdir()) == ["same.so", "strange.so", "throws.so"]


def test_what_is_thrown_inside_is_an_exception_outside(pieces):
    with pytest.raises(RuntimeError, match=r"^it went wrong$"):
        pieces["throws"]([torch.ones(1)])
    with pytest.raises(RuntimeError, match=r"^unknown error$"):
        pieces["strange"]([])


def test_another_number_of_tensors_is_refused(pieces):
    with pytest.raises(ValueError, match="got 1 tensors; expected 2"):
        pieces["same"]([torch.ones(1)])


def test_what_the_compiler_says_is_told_with_the_name_of_the_piece(tmp_path, headers):
    with Builder(tmp_path, headers) as builder:
        builder.build("broken", SOURCE.replace("BODY", "return nothing_of_this_name;"), 0, 0)
        with pytest.raises(
            BuildError, match=r"(?s)could not build broken: .*nothing_of_this_name.* was not declared|undeclared"
        ):
            builder.finish()
    assert list(tmp_path.iterdir()) == []


def test_what_is_under_way_ends_with_the_builder(tmp_path, headers):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Builder(tmp_path, headers) as builder:  # noqa: PT012
        for number in range(8):
            builder.build(f"piece{number}", SOURCE.replace("BODY", ""), 0, 0)
        raise KeyboardInterrupt
    assert threading.active_count() == before
    assert not builder.compiler.running
    assert len(list(tmp_path.glob("*.so"))) < 8
    assert builder.compiler.run(["true"]) == "stopped"
