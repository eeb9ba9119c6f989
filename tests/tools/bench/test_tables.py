from tools.bench.tables import page, table


def test_a_table_is_markdown():
    assert table(("a", "b"), [("1", "x | y\nz")]) == "| a | b |\n| --- | --- |\n| 1 | x / y z |\n"


def test_the_bars_come_first_and_each_section_has_its_table(results):
    text = page(results)
    assert text.index("## Bars") < text.index("## Machine") < text.index("## Steady")
    assert "| commit | abc |" in text
    row = next(line for line in text.splitlines() if line.startswith("| plain eager bf16 "))
    assert "| 30.00 | 30.00 | 33,333 | 20 |" in row
    assert "| 3.00 | 2.50 |" in row
    assert "- not run: jax: no jax" in text


def test_other_initial_losses_are_seen(results):
    contestants = results["steady"]["1m"]["contestants"]
    contestants["plain compiled fp32"] = contestants["plain eager fp32"] | {"loss": 4.3}
    assert "NOT THE SAME MODEL" in page(results)
    contestants["plain compiled fp32"]["loss"] = 4.2
    assert "agreed" in page(results)


def test_every_section_can_be_written():
    ran, failed = {"seconds": 1.0, "loss": 1.8, "test": 1.9, "reached": True, "updates": 3}, {"not_run": "no"}
    exact = {"memory_mb": 100.0, "first_start_memory_mb": 120.0, "seconds_per_step": 1.0}
    length = {"updates": 9, "auto_over_best": 1.0, "measured": {"auto": 1.0}, "predicted": {"none": 1.0}}
    text = page(
        {
            "start": {"round 0": {"import torch": {"warm": 1.0}, "craft step bf16, 4 layers": failed}},
            "quality": {"craft seed 0": ran, "plain seed 0": failed},
            "memory": {"contestants": {"craft": {"peak_mb": 9.0, "ms": [1.0], "peer": "craft", "memory": ""}}, "not_run": {}},
            "generation": {"1m": {"tokens": 2, "rates": {"craft none fp32": [3.0]}, "not_run": {"x": "no"}, "agreed": 2}},
            "overhead": {"ms": {"craft step bf16": [0.4]}, "not_run": {}},
            "loading": {"1m": {"step_ms": [80.0], "batch_ms": [0.2], "mean_ms": [0.3], "not_run": {}}},
            "help": {"seconds": {"craft --help": [0.1], "experiment --help": [1.0], "import torch": [1.0]}},
            "plan": {"--batch 1": {"predicted": exact, "measured": exact}, "--batch 2": failed},
            "default": {"rates": {"none": {"start": 1.0, "update": 0.1}, "step": failed}, "30 s": length},
            "gpu": failed,
        }
    )
    for title in ("Start", "Quality", "Memory", "Generation", "Overhead", "Loading", "Help", "Plan", "Default", "Gpu"):
        assert f"## {title}" in text
