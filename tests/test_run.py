"""The size of memory that a run may take."""

import pytest

from craft.run import Run, budget


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 << 30), ("1500MB", 1500 << 20), ("1.5gb", 3 << 29), ("2 GB", 2 << 30), ("auto", 0), ("fast", 0), ("small", 0)],
)
def test_sizes(text, size):
    assert budget(text) == size
    assert Run(memory=text).memory == text


@pytest.mark.parametrize("text", ["", "4", "GB", "-1GB", "0GB", "4TB", "large"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="expected auto, fast, small, or a size such as 4GB or 1500MB"):
        Run(memory=text)
