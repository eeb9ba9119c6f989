"""Hooks: plain functions of (task, state, report), and the ones of the house written like them."""

import math

import attrs
import pytest
import torch

from craft import engine, hooks, schedule, step
from craft.errors import UsageError
from craft.run import Samples, Track
from craft.train import train
from craft.types import Context, hyper


@pytest.fixture
def moment():
    """Make what a hook is told of a step; `said` and `written` collect what it tells back."""

    def make(step=1, last=False, memory=None, **metrics):
        said: list[str] = []
        written: list[tuple[str, str]] = []
        report = hooks.Moment(
            step, last, metrics, {} if memory is None else memory, {}, said.append, lambda *text: written.append(text)
        )
        return report, said, written

    return make


def plain(tiny, **changes):
    return attrs.evolve(tiny().build(), **changes)


def test_a_plain_function_is_called_every_n_steps_and_after_the_last(tiny, quick):
    calls: dict[str, list] = {"three": [], "eight": [], "five": []}

    def watching(name):
        return lambda task, state, report: calls[name].append((report.step, report.last, int(state.step), task.steps))

    all_of_them = (hooks.every(3, watching("three"), "three"), hooks.every(8, watching("eight"), "eight"))
    task = plain(tiny, hooks=(*all_of_them, hooks.every(5, watching("five"), "five")))
    train(task, quick(), console=False)
    assert calls["three"] == [(3, False, 3, 8), (6, False, 6, 8), (8, True, 8, 8)]
    assert calls["eight"] == [(8, True, 8, 8)]
    assert calls["five"] == [(5, False, 5, 8), (8, True, 8, 8)]


def test_what_a_hook_logs_says_and_writes_is_recorded(tiny, quick):
    def work(task, state, report):
        assert set(report.metrics) >= {"loss", "accuracy", "grad_norm"}
        report.log(**{"mine/size": 2.5 * report.step})
        report.say(f"seen {report.step}")
        report.write("the prompt", "the text")

    result = train(plain(tiny, hooks=(hooks.every(4, work),)), quick(), console=False)
    assert result.summary["mine/size"] == 20.0
    log = (result.directory / "log.txt").read_text(encoding="utf-8")
    assert [word in log for word in ("seen 4", "seen 8", "seen 3")] == [True, True, False]
    assert "the text" in (result.directory / "samples.txt").read_text(encoding="utf-8")


def test_a_hook_can_save_and_stop(tiny, quick):
    def work(task, state, report):
        if report.step == 2:
            report.save()
        if report.step == 5:
            report.stop("it is good enough")

    result = train(plain(tiny, hooks=(hooks.every(1, work),)), quick(), console=False)
    assert (result.status, int(result.state.step)) == ("stopped", 5)
    names = sorted(path.name for path in (result.directory / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000005"]  # 2 was saved, and pruned when 5 came
    assert "stopped at step 5: it is good enough" in (result.directory / "log.txt").read_text(encoding="utf-8")


def test_memory_that_json_cannot_hold_is_an_error(tiny, quick):
    def work(task, state, report):
        report.memory["tensor"] = torch.ones(())

    with pytest.raises(ValueError, match=r"memory\.work\.tensor; expected JSON data"):
        train(plain(tiny, hooks=(hooks.every(1, work),)), quick(), console=False)


def test_a_hook_is_named_after_its_function():
    def my_own(task, state, report):
        """Do nothing."""

    assert hooks.every(3, my_own) == hooks.Hook("my_own", 3, my_own)
    assert hooks.every(3, my_own, "other").name == "other"
    for steps in (0, -1):
        with pytest.raises(UsageError, match=f"got a hook every {steps} steps; expected at least 1"):
            hooks.every(steps, my_own)


def test_a_report_is_the_mean_since_the_last_one(tiny, moment):
    call = hooks.reporting(2).call
    memory: dict[str, float] = {}
    task = attrs.evolve(plain(tiny), rate=None)
    for number, loss in ((1, 4.0), (2, 2.0)):
        report, _, _ = moment(number, memory=memory, loss=loss, weight=64.0)
        call(task, None, report)
    assert report.values == {"train/loss": 3.0, "train/bits": 3.0 / math.log(2)}
    assert memory == {}
    report, _, _ = moment(3, memory=memory, loss=7.0)
    call(task, None, report)
    assert report.values == {}
    report, _, _ = moment(4, memory=memory, last=True, loss=9.0)
    call(task, None, report)
    assert report.values["train/loss"] == 8.0
    report, _, _ = moment(5, last=True, loss=9.0)
    call(attrs.evolve(task, tokenizer=None), None, report)
    assert report.values == {"train/loss": 9.0}


def test_a_report_has_the_rate_of_its_update(tiny, moment):
    task = attrs.evolve(plain(tiny), rate=schedule.Schedule(warmup=0.5, shape="constant").build(hyper("lr", 0.25)))
    found = []
    for number in range(1, 9):
        report, _, _ = moment(number, loss=1.0)
        hooks.reporting(1).call(task, None, report)
        found.append(report.values["train/lr"])
    assert found == pytest.approx([float(task.rate(Context(progress=torch.tensor(n / 8)))) for n in range(8)])
    assert found[0] < found[-1]


MEASURED = ("eval/loss", "eval/accuracy")


def test_the_best_measure_is_saved_and_remembered(tiny, moment):
    memory: dict[str, float] = {}
    task, wishes = plain(tiny), []
    for number, (loss, accuracy) in enumerate([(3.0, 0.1), (2.0, 0.3), (2.5, 0.2), (1.0, 0.1)], start=1):
        report, _, _ = moment(number, memory=memory)
        report.compared.update({"eval/loss": loss, "eval/accuracy": accuracy})
        hooks.keeping(1, "eval/loss", MEASURED).call(task, None, report)
        wishes.append("save" in report.wishes)
    assert wishes == [True, True, False, True]
    assert memory == {"value": 1.0, "step": 4}
    report, _, _ = moment(5, memory=memory, last=True)
    report.compared["eval/loss"] = 0.5
    hooks.keeping(1, "eval/loss", MEASURED).call(task, None, report)
    assert memory["step"] == 5
    report, _, _ = moment(6, memory={"value": 0.1, "step": 1})
    report.compared["eval/accuracy"] = 0.3
    hooks.keeping(1, "eval/accuracy", MEASURED).call(task, None, report)
    assert report.memory["step"] == 6
    with pytest.raises(
        UsageError, match=r"got --checkpoint\.best eval/los, which is not measured; expected one of eval/accuracy"
    ):
        hooks.keeping(1, "eval/los", MEASURED)


def test_reporting_needs_no_state_and_the_others_do():
    assert not hooks.reporting(3).reads_state
    assert hooks.saving(3).reads_state


def numbered(count):
    """Make an evaluation whose batches are 0, 1, 2 ...; its loss is their mean."""

    def measure(state, batch):
        return {"loss": (batch.sum(), torch.ones(()))}

    return step.Evaluation(measure, lambda split: [torch.tensor([float(n)]) for n in range(count)])


def test_evaluation_takes_some_batches_during_the_run_and_all_at_its_end(tiny, quick, moment):
    task = plain(tiny, evaluation=numbered(5))
    hook = hooks.evaluation(3, hooks.measuring(engine.start(quick())), batches=2)
    memory: dict[str, float] = {}
    report, _, _ = moment(3, memory=memory)
    hook.call(task, None, report)
    assert report.values == {"eval/loss": 1.0, "eval/best": 1.0}
    report, _, _ = moment(8, memory=memory, last=True)
    hook.call(task, None, report)
    assert report.values == {"eval/loss": 2.0, "eval/best": 1.0}  # the best is of the same batches as before
    assert memory == {"best": 1.0}


def test_a_held_out_loss_that_is_not_finite_is_never_the_best(tiny, quick, moment):
    def measure(state, batch):
        return {"loss": (torch.tensor(math.nan), torch.ones(()))}

    task = plain(tiny, evaluation=step.Evaluation(measure, lambda split: [torch.zeros(1)]))
    report, _, _ = moment(memory={"best": 1.0})
    hooks.evaluation(1, hooks.measuring(engine.start(quick())), 1).call(task, None, report)
    assert math.isnan(report.values["eval/loss"])
    assert "eval/best" not in report.values
    assert report.memory == {"best": 1.0}


def test_stopping_counts_evaluations_without_a_better_loss(tiny, moment):
    hook = hooks.stopping(1, patience=2)
    memory: dict[str, float] = {}

    def tell(loss, last=False):
        report, _, _ = moment(memory=memory, last=last)
        report.compared.update({} if loss is None else {"eval/loss": loss})
        hook.call(tiny().build(), None, report)
        return report.wishes.get("stop", "")

    assert [tell(loss) for loss in (3.0, 2.0, 2.5, None, 1.9, 2.0)] == [""] * 6
    assert tell(5.0, last=True) == ""
    assert tell(math.nan) == "held-out loss not below 1.9000 for 2 evaluations"


def test_samples_are_written_and_shown(tiny, quick, moment):
    task = plain(tiny)
    hook = hooks.sampling(4, engine.start(quick()), "the ", 12, 0.8)
    report, _, written = moment(4)
    hook.call(task, task.init(0), report)
    [(prompt, text)] = written
    assert (prompt, len(text)) == ("the ", 12)


def test_flags_of_samples_and_reports_are_followed(tiny, quick):
    run = quick(sample=Samples(every=0, prompt="a dog", tokens=5), track=Track(wandb="off", every=8))
    result = train(tiny().build(), run, console=False)
    text = (result.directory / "samples.txt").read_text(encoding="utf-8")
    assert text.startswith('== step 8, after the prompt "a dog"')
    assert text.count("== step") == 1
