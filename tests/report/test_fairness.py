"""What a reader is told before comparing."""

from craft.report import fairness


def told(comparison):
    return " ".join(comparison.notes)


def test_like_runs_need_no_word(make, seen):
    found = seen(make("a"), make("b", lr=0.04))
    assert (found.notes, found.comparable) == ((), True)


def test_other_tokens_are_not_compared(make, seen):
    fair = {"eval/bits_per_byte": 2.0}
    one = make("a", metrics=fair)
    found = seen(one, make("b", metrics=fair, tokenizer="abcd", fingerprint="beef"))
    assert not found.comparable
    assert "different tokens: losses, bits, accuracies and perplexities per token are not comparable" in told(found)
    assert "eval/bits_per_byte is." in told(found)
    assert "compares them only roughly" in told(found)
    assert "but 1 of 2 runs have none" in told(seen(one, make("c", tokenizer="abcd")))
    assert "and none has eval/bits_per_byte, which would be" in told(seen(make("d"), make("e", tokenizer="abcd")))
    assert "roughly" not in told(seen(make("f"), make("g", tokenizer="abcd", fingerprint="beef")))


def test_other_data_in_the_same_tokens(make, seen):
    assert "trained and measured on different data" in told(seen(make("a"), make("b", fingerprint="beef")))


def test_runs_that_are_not_through(make, seen):
    half = make("a", upto=20)
    assert "stands at step 20 of 40" in told(seen(half))
    assert "1 of 2 runs have not reached their last step" in told(seen(half, make("b", lr=0.04)))
    assert "different lengths (20 to 40 steps)" in told(seen(make("c"), make("d", steps=20)))


def test_which_way_is_better():
    assert fairness.better("eval/loss") is min
    assert fairness.better("eval/accuracy") is max
    assert fairness.better("eval/temperature") is None
