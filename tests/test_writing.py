"""A task's model writes text: as much as is asked for, in pieces, and only from what it knows."""

import attrs
import pytest

from craft import data, engine, generate
from craft.errors import UsageError
from craft.generate import Sampling
from craft.writing import write


@pytest.fixture
def written(tiny, quick):
    task = tiny().build()
    state, machine = task.init(0), engine.start(quick())

    def start(prompt="the cat", tokens=40, **sampling):
        return list(write(task, task.params(state), machine, prompt, tokens, Sampling(**sampling)))

    return start


def test_it_writes_as_many_tokens_as_asked_beyond_the_context_too(written):
    pieces = written(tokens=40)
    assert len("".join(pieces)) == 40  # a token is a character here, and the context is 16
    assert all(len(piece) == 1 for piece in pieces[:40])
    assert "".join(written(tokens=1)) == pieces[0]
    assert len("".join(written(prompt="the cat sat on the mat", tokens=9))) == 9


def test_the_seed_decides(written):
    assert written(seed=1) == written(seed=1)
    assert written(seed=1) != written(seed=2)
    assert "".join(written(temperature=0.0, seed=1)) == "".join(written(temperature=0.0, seed=2))


def test_a_prompt_that_does_not_fit_is_refused(written):
    with pytest.raises(UsageError, match=r"prompt does not fit the model: .*'Q' \(2\), '7' \(1\)"):
        written(prompt="the QQ 7")
    with pytest.raises(UsageError, match="got an empty prompt"):
        written(prompt="")


def test_no_half_character_is_lost_or_torn(tiny, quick, text):
    task = tiny(data=data.Text(source=str(text), tokenizer="byte")).build()
    state, machine = task.init(0), engine.start(quick())
    assert task.model is not None
    assert task.tokenizer is not None
    ends = set()
    for seed in range(30):
        sampling = Sampling(temperature=2.0, seed=seed)
        prompt_BT = task.tokenizer.encode("the")[None]
        drawn = generate.decode(task.model, state.params, prompt_BT, vocabulary=256, context=16, sampling=sampling)
        ids = [int(next(drawn)) for _ in range(2)]
        pieces = list(write(task, state.params, machine, "the", 2, sampling))
        assert "".join(pieces) == task.tokenizer.decode(ids)
        ends.add(pieces[-1])
    assert ends == {"", "\ufffd"}  # some end within a character, which is told only at the end


@pytest.mark.parametrize("missing", ["model", "tokenizer", "context"])
def test_a_task_that_cannot_write_says_so(tiny, quick, missing):
    task = attrs.evolve(tiny().build(), **{missing: 0 if missing == "context" else None})
    with pytest.raises(UsageError, match="generation needs its model, tokenizer and context"):
        next(write(task, {}, engine.start(quick()), "the", 3, Sampling()))
