"""Runs side by side: which are seeds of one, what differs, what is best."""

import pytest


def test_runs_that_differ_only_in_the_seed_are_one_group(make, seen):
    found = seen(make("a", seed=2), make("b", lr=0.04), make("c", seed=0), make("d", seed=1))
    assert [group.label for group in found.groups] == ["lr=0.02", "lr=0.04"]
    assert [len(group.stories) for group in found.groups] == [3, 1]
    assert found.groups[0].names == ("lr=0.02, seed=0", "lr=0.02, seed=1", "lr=0.02, seed=2")
    assert found.differences == {"lr": (0.02, 0.04)}
    assert "seed" not in found.shared
    assert found.shared["model.depth"] == 2
    final = found.groups[0].final("eval/loss")
    assert final is not None
    assert (final.n, final.half is not None) == (3, True)
    assert found.repeated


@pytest.mark.parametrize("change", [{"fingerprint": "beef"}, {"model.depth": 3}, {"optimizer.decay": 0.2}])
def test_anything_else_makes_another_group(make, seen, change):
    assert len(seen(make("a"), make("b", seed=1, **change)).groups) == 2


def test_a_repeated_seed_is_no_second_sample(make, seen):
    found = seen(make("a"), make("b"), make("c", seed=1))
    assert [len(group.stories) for group in found.groups] == [2, 1]
    assert [group.label for group in found.groups] == ["char_1m (a)", "char_1m (b)"]
    assert "a run repeated is no second sample" in found.notes[0]


def test_the_best_is_marked_where_it_means_something(make, seen):
    found = seen(make("a"), make("b", lr=0.04))
    assert found.best("eval/loss") == {1}
    assert found.best("eval/accuracy") == {1}
    assert found.best("train/grad_norm") == set()
    assert seen(make("equal"), make("twin"), make("worse", lr=0.01)).best("eval/loss") == {0, 1}
    assert seen(make("same"), make("again")).best("eval/loss") == set()
    assert seen(make("c", seed=3)).best("eval/loss") == set()
    assert seen(make("d"), make("e", lr=0.04, fingerprint="beef")).best("eval/loss") == set()


def test_a_broken_number_is_not_the_best(make, seen):
    nan = float("nan")
    found = seen(make("a", metrics={"eval/loss": nan}), make("b", lr=0.04), make("c", lr=0.01))
    assert found.best("eval/loss") == {1}
    assert seen(make("d", metrics={"eval/loss": nan}), make("e", lr=0.04)).best("eval/loss") == set()


def test_metrics_are_ordered_and_bits_per_byte_leads_where_nothing_else_is_fair(make, seen):
    metrics = {"eval/zeta": 1.0, "eval/bits_per_byte": 2.0, "eval/best": 1.0}
    one = make("a", metrics=metrics)
    expected = ("eval/loss", "eval/bits_per_byte", "eval/accuracy", "eval/zeta", "eval/best", "train/loss")
    assert seen(one).metrics == expected
    other = make("b", metrics=metrics, tokenizer="abcd", fingerprint="beef")
    assert seen(one, other).metrics[:2] == ("eval/bits_per_byte", "eval/loss")


def test_a_run_without_evaluation_or_loss(make, seen):
    assert seen(make("a", held=False)).metrics == ("train/loss",)
    run = make("b", upto=2)
    (run / "metrics.jsonl").write_text('{"step": 2, "tokens": 0, "train/critic": 1.5}\n', encoding="utf-8")
    assert seen(run).metrics == ("train/critic",)


def test_where_a_group_stands(make, seen):
    [one] = seen(make("a"), make("b", seed=1, upto=20)).groups
    assert one.progress == "20-40/40"
    assert one.mean("seconds") == 15.0
    assert one.mean("flops") is None
    assert seen(make("c")).groups[0].progress == "40"
