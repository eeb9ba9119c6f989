"""The loop: a run end to end, the same run twice, stopped and resumed anywhere, and what it refuses."""

import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import attrs
import pytest
import torch

from craft import checkpoint, data, grad, hooks, optim, record, rng, step, store, track, tree
from craft.errors import UsageError
from craft.run import Checkpoints, Evaluations, Run, Stop, Track
from craft.saving import NotSavedError
from craft.step import Task
from craft.store import disk
from craft.train import NotFiniteError, train
from craft.types import Context, Tensor, Tree

NAME = "char_1m"
FILES = {"params.safetensors", "state.safetensors", "MANIFEST.json"}


def strict(path):
    """Read lines of JSON that has no NaN and no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def steps_in(directory):
    return [found.step for found in checkpoint.find(directory / "checkpoints")]


def remember(task, state, report):
    """Keep a number in the hook's memory that depends on all of its calls, and show it."""
    report.memory["sum"] = report.memory.get("sum", 0.0) + report.metrics["loss"]
    report.memory["steps"] = [*report.memory.get("steps", ()), report.step]
    report.log(remembered=report.memory["sum"])


def with_hook(task, function, every=1, name=""):
    return attrs.evolve(task, hooks=(*task.hooks, hooks.every(every, function, name)))


def at(number, action):
    """Make a hook function that acts at one step alone."""
    return lambda task, state, report: action() if report.step == number else None


def hooked(task, number=0, action=None):
    """Give a task a hook that remembers and one that acts at one step."""
    return with_hook(with_hook(task, remember, every=2), at(number, action), name="breaker")


class Broken(Exception):
    """What a hook of the tests raises."""


# -- a run, end to end


@pytest.fixture
def done(tiny, quick):
    return train(hooked(tiny().build()), quick(), name=NAME, console=False)


def test_a_run_leaves_a_directory_that_says_everything(done, tiny):
    directory = done.directory
    assert (done.status, done.signal, int(done.state.step)) == ("finished", 0, 8)
    names = {path.name for path in directory.iterdir()} - {".lock"}
    assert names == {
        "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl", "samples.txt", "log.txt", "checkpoints"
    }  # fmt: skip
    facts = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert facts["experiment"]["module"] == "experiments.char_1m"
    assert facts["experiment"]["name"] == NAME
    assert facts["experiment"]["values"]["model"]["pattern"][0] == attrs.asdict(tiny().model.pattern[0]) | {"kind": "Attention"}
    assert facts["steps"] == 8
    assert facts["seed"] == 0
    assert facts["run"]["precision"] == "fp32"
    assert {"python", "torch", "craft", "safetensors"} <= set(facts["versions"])
    assert facts["data"]["fingerprint"] == tiny().build().data.fingerprint
    assert len(facts["code"]) == 64
    assert data.load_tokenizer(facts_of(directory / "tokenizer.json")).size == 20
    assert (directory / "log.txt").read_text(encoding="utf-8").splitlines()[-1].endswith("finished")


def facts_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_metrics_are_strict_json_and_name_each_step_once(done):
    rows, timings = strict(done.directory / "metrics.jsonl"), strict(done.directory / "timings.jsonl")
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 8]
    assert [row["step"] for row in timings] == [2, 3, 4, 6, 8]
    assert all(row["tokens"] == row["step"] * 4 * 16 for row in rows)
    assert [row["step"] for row in rows if "train/loss" in row] == [3, 6, 8]
    assert [row["step"] for row in rows if "eval/loss" in row] == [2, 4, 6, 8]
    assert all(set(row) == {"step", "seconds", "tokens_per_second", "memory_mb"} for row in timings)
    assert done.summary["eval/loss"] == rows[-1]["eval/loss"]
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"]


def test_samples_come_every_n_steps_and_at_the_end(done):
    text = (done.directory / "samples.txt").read_text(encoding="utf-8")
    assert [line.split()[2].rstrip(",") for line in text.splitlines() if line.startswith("== step")] == ["4", "8"]


def test_the_last_step_is_saved_and_only_the_newest_are_kept(done, tiny, quick):
    assert steps_in(done.directory) == [6, 8]
    for path in (done.directory / "checkpoints").iterdir():
        assert {file.name for file in path.iterdir()} == FILES
    loaded = checkpoint.load(done.directory / "checkpoints" / "step-00000008", tiny().build().init(0))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(loaded), tree.leaves(done.state), strict=True))
    longer = train(tiny().build(), quick("keep", checkpoint=Checkpoints(every=1, keep=5)), name=NAME, console=False)
    assert steps_in(longer.directory) == [4, 5, 6, 7, 8]


def test_nothing_is_pickled(done):
    for path in done.directory.rglob("*"):
        if path.is_file():
            assert path.suffix in {".json", ".jsonl", ".txt", ".safetensors"} or path.name == ".lock"
            assert not path.read_bytes().startswith((b"\x80", b"PK"))


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(done, tiny, quick, bytes_of):
    again = train(hooked(tiny().build()), quick("again"), name=NAME, console=False)
    assert bytes_of(again.directory) == bytes_of(done.directory)
    assert len(bytes_of(done.directory)) == 9
    other = train(hooked(tiny(seed=1).build()), quick("other"), name=NAME, console=False)
    first, second = bytes_of(other.directory), bytes_of(done.directory)
    same = {path for path in first if first[path] == second[path]}
    assert same <= {"tokenizer.json", "samples.txt"}


def test_a_run_without_flags_of_its_own_reports_saves_and_evaluates(tiny, quick):
    run = quick(checkpoint=Checkpoints(), evaluate=Evaluations(), track=Track(wandb="off"))
    rows = strict(train(tiny(steps=10).build(), run, name=NAME, console=False).directory / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 11))
    assert [row["step"] for row in rows if "eval/loss" in row] == [2, 4, 6, 8, 10]


def test_a_run_shows_itself(tiny, quick, capsys):
    train(tiny().build(), quick(), name=NAME)
    shown = capsys.readouterr().out
    assert "char_1m in" in shown
    assert "8/8" in shown
    assert "compile none: as asked" in shown


def test_runs_without_out_lie_under_their_name(tiny, quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = train(tiny(steps=1).build(), quick(""), name=NAME, console=False)
    second = train(tiny(steps=1).build(), quick(""), name=NAME, console=False)
    assert first.directory != second.directory
    assert {path.parent.parent.name for path in (first.directory, second.directory)} == {"outputs"}
    assert record.newest(NAME) == second.directory


# -- stopped and resumed


def ask(number):
    return lambda: os.kill(os.getpid(), number)


def raise_broken():
    raise Broken("a hook failed")


@pytest.mark.parametrize("stop_at", [1, 3, 5, 7])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "error"])
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(done, tiny, quick, bytes_of, how, stop_at):
    run = quick("stopped")
    if how == "error":
        with pytest.raises(Broken, match="a hook failed"):
            train(hooked(tiny().build(), stop_at, raise_broken), run, name=NAME, console=False)
        assert (run.out / "log.txt").read_text(encoding="utf-8").splitlines()[-1].endswith("failed")
        assert steps_in(run.out) == [n for n in (3, 6) if n < stop_at]
    else:
        stopped = train(hooked(tiny().build(), stop_at, ask(signal.Signals[how])), run, name=NAME, console=False)
        assert (stopped.status, stopped.signal) == ("stopped", signal.Signals[how])
        assert int(stopped.state.step) == stop_at
        assert steps_in(run.out)[-1] == stop_at
    resumed = train(hooked(tiny().build()), attrs.evolve(run, resume="auto"), name=NAME, console=False)
    assert resumed.status == "finished"
    there, here = bytes_of(done.directory), bytes_of(resumed.directory)
    differing = {path for path in there.keys() & here.keys() if there[path] != here[path]}
    assert not differing
    kept = {path.split("/")[1] for path in here if "/" in path}  # a run that was stopped at 7 saved 7 instead of 6
    assert kept == (
        {"step-00000007", "step-00000008"} if stop_at == 7 and how != "error" else {"step-00000006", "step-00000008"}
    )
    manifest = checkpoint.find(resumed.directory / "checkpoints")[-1].manifest
    assert manifest["memory"]["remember"]["steps"] == [2, 4, 6, 8]


def test_handlers_of_signals_come_back(tiny, quick):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(with_hook(tiny().build(), at(2, ask(signal.SIGTERM)), name="breaker"), quick(), name=NAME, console=False)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_resume_auto_starts_continues_and_is_content_with_a_complete_run(tiny, quick, bytes_of, tmp_path):
    run = quick("auto", resume="auto")
    train(with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker"), run, name=NAME, console=False)  # DIR is absent
    assert steps_in(run.out)[-1] == 4
    finished = train(tiny().build(), run, name=NAME, console=False)
    assert steps_in(run.out)[-1] == 8
    before = bytes_of(run.out)
    again = train(tiny().build(), run, name=NAME, console=False)
    assert (again.status, again.signal, int(again.state.step)) == ("finished", 0, 8)
    assert bytes_of(run.out) == before == bytes_of(finished.directory)
    assert "complete: all 8 steps are done" in (run.out / "log.txt").read_text(encoding="utf-8")
    (tmp_path / "empty").mkdir()
    assert train(tiny().build(), quick("empty", resume="auto"), name=NAME, console=False).status == "finished"


def test_resume_auto_without_out_finds_the_newest_run(tiny, quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    stopping = with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker")
    stopped = train(stopping, quick(""), name=NAME, console=False)
    resumed = train(tiny().build(), quick("", resume="auto"), name=NAME, console=False)
    assert resumed.directory == stopped.directory
    assert resumed.status == "finished"


def test_a_resumed_run_goes_on_with_its_own_mode_and_says_when_it_cannot(tiny, quick):
    run = quick("mode")
    train(with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker"), run, name=NAME, console=False)
    automatic = attrs.evolve(run, resume="auto", precision="auto", compile="auto", threads=0)
    train(with_hook(tiny().build(), at(6, ask(signal.SIGTERM)), name="breaker"), automatic, name=NAME, console=False)
    log = (run.out / "log.txt").read_text(encoding="utf-8")
    assert "resumed after step 4" in log
    assert "not exact" not in log
    train(tiny().build(), attrs.evolve(run, resume="auto", precision="bf16"), name=NAME, console=False)
    log = (run.out / "log.txt").read_text(encoding="utf-8")
    assert "not exact from here on: precision was 'fp32', is 'bf16'" in log


def test_a_damaged_checkpoint_is_passed_over(done, tiny, quick, bytes_of):
    before = bytes_of(done.directory)
    broken = done.directory / "checkpoints" / "step-00000008" / "state.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"?")
    train(hooked(tiny().build()), quick(resume=str(done.directory)), name=NAME, console=False)
    assert bytes_of(done.directory) == before
    assert "skipped the checkpoint step-00000008" in (done.directory / "log.txt").read_text(encoding="utf-8")


# -- refused


def refused(error, match, task, run, kept, bytes_of):
    """Check that a run is refused and that nothing of the former one is touched."""
    before = bytes_of(kept), (kept / "config.json").read_bytes()
    with pytest.raises(error, match=match):
        train(task, run, name=NAME, console=False)
    assert (bytes_of(kept), (kept / "config.json").read_bytes()) == before


def test_a_taken_directory_is_refused(done, tiny, quick, bytes_of, tmp_path):
    refused(UsageError, "which is taken; choose another", tiny().build(), quick(), done.directory, bytes_of)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    for resume in ("", "auto"):
        with pytest.raises(UsageError, match="which is taken"):
            train(tiny().build(), quick("mine", resume=resume), name=NAME, console=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_another_configuration_is_refused_and_its_fields_are_listed(done, tiny, quick, bytes_of):
    run = quick(resume="auto")
    task = tiny(lr=0.1, optimizer=optim.Muon(average=0.9, decay=0.5)).build()
    refused(
        UsageError,
        r"lr: 0\.02 there, 0\.1 here; optimizer\.decay: 0\.1 there, 0\.5",
        task,
        run,
        done.directory,
        bytes_of,
    )


def test_another_number_of_steps_needs_a_word(done, tiny, quick, bytes_of):
    longer = tiny(steps=12).build()
    refused(UsageError, "steps: 8 there, 12 here.*--extend", longer, quick(resume="auto"), done.directory, bytes_of)
    extended = train(longer, quick(resume="auto", extend=True), name=NAME, console=False)
    assert int(extended.state.step) == 12
    assert int(extended.state.horizon) == 12
    assert steps_in(done.directory)[-1] == 12
    assert facts_of(done.directory / "config.json")["steps"] == 12
    assert train(longer, quick(resume="auto"), name=NAME, console=False).status == "finished"


def test_other_data_is_refused(done, tiny, quick, text, bytes_of):
    text.write_text("another text of the same characters: the cat; a dog.\n" * 60, encoding="utf-8")
    refused(
        UsageError,
        r"was trained on other data: .*characters: 2640 there, 3180 here.*give it the data it was trained on",
        tiny().build(),
        quick(resume="auto"),
        done.directory,
        bytes_of,
    )


def test_a_directory_that_is_no_run_cannot_be_resumed(tiny, quick, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        train(tiny().build(), quick("", resume=str(tmp_path / "nowhere")), name=NAME, console=False)
    with pytest.raises(UsageError, match=r"has no config\.json"):
        train(tiny().build(), quick("", resume=str(tmp_path)), name=NAME, console=False)
    with pytest.raises(UsageError, match="leave --out away"):
        train(tiny().build(), quick("other", resume=str(tmp_path)), name=NAME, console=False)


_KEEP = """
import sys
from pathlib import Path
from craft import store
with store.lock(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out(done, tiny, quick, root, bytes_of):
    command = [sys.executable, "-c", _KEEP, str(done.directory)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        refused(store.Busy, f"in use by process {other.pid}", tiny().build(), quick(resume="auto"), done.directory, bytes_of)
        other.communicate()
    assert train(hooked(tiny().build()), quick(resume="auto"), name=NAME, console=False).status == "finished"


def test_a_device_that_is_not_there_is_refused(tiny, quick):
    with pytest.raises(UsageError, match="got device 'cuda:99'; this machine has cpu"):
        train(tiny().build(), quick(device="cuda:99"), name=NAME, console=False)


def test_extend_without_a_run_is_refused(tiny, quick):
    with pytest.raises(UsageError, match="got --extend without --resume"):
        train(tiny().build(), quick(extend=True), name=NAME, console=False)


def test_no_run_goes_long_without_a_checkpoint(tiny, quick):
    often = quick(checkpoint=Checkpoints(every=100, minutes=1e-9, keep=20))
    result = train(tiny().build(), often, name=NAME, console=False)
    assert len(list((result.directory / "checkpoints").iterdir())) == 8


def test_two_hooks_of_one_name_are_refused(tiny, quick):
    task = with_hook(with_hook(tiny().build(), remember), remember)
    with pytest.raises(UsageError, match=r"hooks of one name.*remember, remember"):
        train(task, quick(), name=NAME, console=False)


# -- early stopping


def worse_from(number):
    """Return the measure of an evaluation whose loss falls until a step and then rises."""

    def measure(state, batch):
        far = (state.step - number).abs().float()
        return {"loss": (1.0 + far, torch.ones(()))}

    return measure


def stopping(tiny, *more):
    task = tiny(steps=20).build()
    task = attrs.evolve(task, evaluation=step.Evaluation(worse_from(4), lambda split: [torch.zeros(1)]))
    return with_hook(task, *more) if more else task


def test_a_run_stops_when_it_has_waited_long_enough(tiny, quick):
    result = train(stopping(tiny), quick(stop=Stop(patience=3), sample=quick().sample), name=NAME, console=False)
    assert (result.status, result.signal, int(result.state.step)) == ("stopped", 0, 10)
    assert steps_in(result.directory)[-1] == 10
    assert "held-out loss not below 1.0000 for 3 evaluations" in (result.directory / "log.txt").read_text(encoding="utf-8")


def test_how_long_it_has_waited_survives_a_resume(tiny, quick):
    run = quick("waiting", stop=Stop(patience=3))
    train(stopping(tiny, at(7, ask(signal.SIGTERM))), run, name=NAME, console=False)
    resumed = train(stopping(tiny), attrs.evolve(run, resume="auto"), name=NAME, console=False)
    assert (resumed.status, int(resumed.state.step)) == ("stopped", 10)
    assert strict(run.out / "metrics.jsonl")[-1]["eval/best"] == 1.0


# -- numbers that are not finite, and tasks that are not text


@attrs.frozen
class Line:
    """Points on a line, four of them a step."""

    bad: int = -1
    """Step whose points hold a NaN."""

    @property
    def fingerprint(self):
        return hashlib.sha256(b"line").hexdigest()

    @property
    def tokens(self):
        return 4

    def batch(self, step):
        x_BD = rng.normal(rng.fold_in(rng.key(torch.tensor(7)), torch.tensor(step)), (4, 3))
        y_B = x_BD @ torch.tensor([1.0, -2.0, 0.5])
        return {"x": x_BD, "y": torch.where(torch.tensor(step == self.bad), torch.nan, y_B)}

    def describe(self):
        return {"name": "line"}


def squares(params: Tree, batch: Tree, ctx: Context) -> tuple[Tensor, dict[str, Any]]:
    return (batch["x"] @ params["w"] - batch["y"]).square().mean(), {}


def line(bad=-1, steps=6):
    transform = optim.chain(optim.trace(0.1), optim.scale_by_rate(0.02, {"w": 1.0}))

    def init(seed):
        return step.start({"w": torch.zeros(3)}, transform, steps=steps, seed=seed)

    return Task(step=step.build(grad.reverse(squares), transform), init=init, data=Line(bad), steps=steps)


def test_a_task_of_numbers_alone_is_trained(quick, bytes_of):
    result = train(line(), quick(), console=False)
    rows = strict(result.directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[1]["train/loss"] < rows[0]["train/loss"]
    assert "train/bits" not in rows[0]
    assert "outputs" not in str(result.directory)
    assert not (result.directory / "tokenizer.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run_before_it_touches_anything(quick):
    run = quick("bad", checkpoint=Checkpoints(every=2))
    with pytest.raises(
        NotFiniteError, match=r"step 6 gave .*\(loss nan.*\); it was not applied, the last good checkpoint is step 4"
    ):
        train(line(bad=5), run, console=False)
    good = train(attrs.evolve(line(), steps=6), quick("good", checkpoint=Checkpoints(every=1, keep=9)), console=False)
    found = checkpoint.find(run.out / "checkpoints")
    assert [point.step for point in found] == [2, 4]
    last = checkpoint.load(found[-1].path, line().init(0))
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(last))
    same = checkpoint.load(good.directory / "checkpoints" / "step-00000004", line().init(0))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(last), tree.leaves(same), strict=True))
    assert all(row["step"] <= 5 for row in strict(run.out / "metrics.jsonl"))


def test_the_step_itself_leaves_every_leaf_alone(quick):
    task = line(bad=1)
    state, _ = task.step(task.init(0), task.data.batch(0))
    after, metrics = task.step(state, task.data.batch(1))
    assert bool(after.halted)
    assert bool(metrics["loss"].isnan())
    assert all(
        torch.equal(a, b) for a, b in zip(tree.leaves(after._replace(halted=state.halted)), tree.leaves(state), strict=True)
    )


def test_without_a_checkpoint_the_message_says_so(quick):
    with pytest.raises(NotFiniteError, match=r"step 1 gave .*no checkpoint was written yet"):
        train(line(bad=0), quick("bad"), console=False)


# -- a step written by hand


class Game(NamedTuple):
    """Two networks that play against each other, each with an optimiser of its own."""

    step: Tensor
    halted: Tensor
    seed: Tensor
    maker: Tree
    critic: Tree
    maker_opt: Tree
    critic_opt: Tree


def gan(steps=8):
    """Make a tiny generative adversarial network: a step of one's own, with nothing else written."""
    forward, backward = optim.scale_by_adam(), optim.scale_by_adam()

    def make(maker, key):
        return rng.normal(key, (16, 2)) @ maker["w"] + maker["b"]

    def judge(critic, x_BD):
        return torch.tanh(x_BD @ critic["w"]) @ critic["v"]

    def play(state, batch):
        key = rng.fold_in(rng.key(state.seed), state.step)

        def critic_loss(critic):
            fake = judge(critic, make(state.maker, key))
            return torch.nn.functional.softplus(fake).mean() + torch.nn.functional.softplus(-judge(critic, batch)).mean()

        grads, loss = torch.func.grad_and_value(critic_loss)(state.critic)
        moves, critic_opt = forward.update(grads, state.critic_opt, state.critic, Context())
        critic = tree.map(lambda p, m: p - 0.05 * m, state.critic, moves)

        def maker_loss(maker):
            return torch.nn.functional.softplus(-judge(critic, make(maker, key))).mean()

        grads, second = torch.func.grad_and_value(maker_loss)(state.maker)
        moves, maker_opt = backward.update(grads, state.maker_opt, state.maker, Context())
        maker = tree.map(lambda p, m: p - 0.05 * m, state.maker, moves)
        halted = ~(torch.isfinite(loss) & torch.isfinite(second))
        new = Game(state.step + 1, halted, state.seed, maker, critic, maker_opt, critic_opt)
        return new, {"critic": loss, "maker": second}

    def init(seed):
        key = rng.key(torch.tensor(seed))
        maker = {"w": rng.normal(key, (2, 2)), "b": torch.zeros(2)}
        critic = {"w": rng.normal(rng.fold_in(key, 1), (2, 4)), "v": rng.normal(rng.fold_in(key, 2), (4,))}
        start = torch.tensor(0)
        return Game(start, torch.tensor(False), torch.tensor(seed), maker, critic, backward.init(maker), forward.init(critic))

    class Points(Line):
        def batch(self, step):
            return 2.0 + rng.normal(rng.fold_in(rng.key(torch.tensor(3)), torch.tensor(step)), (16, 2))

    return Task(step=play, init=init, data=Points(), steps=steps)


def test_a_step_of_ones_own_gets_everything(quick, bytes_of):
    whole = train(with_hook(gan(), remember_critic), quick("whole"), console=False)
    rows = strict(whole.directory / "metrics.jsonl")
    assert {"train/critic", "train/maker", "remembered"} <= set(rows[-1])
    assert steps_in(whole.directory) == [6, 8]
    leaves = checkpoint.find(whole.directory / "checkpoints")[-1].manifest["leaves"]
    assert {"maker.w", "critic.v", "maker_opt.mean.w", "critic_opt.square.v"} <= set(leaves)
    run = quick("parts")
    breaking = with_hook(with_hook(gan(), remember_critic), at(4, ask(signal.SIGINT)), name="breaker")
    assert train(breaking, run, console=False).status == "stopped"
    resumed = train(with_hook(gan(), remember_critic), attrs.evolve(run, resume="auto"), console=False)
    assert bytes_of(resumed.directory) == bytes_of(whole.directory)
    assert not torch.equal(resumed.state.maker["w"], gan().init(0).maker["w"])


def remember_critic(task, state, report):
    report.memory["sum"] = report.memory.get("sum", 0.0) + report.metrics["critic"]
    report.log(remembered=report.memory["sum"])


# -- what a run must not die of


def test_a_text_without_the_samples_prompt_is_trained_to_its_end(tiny, quick, text):
    text.write_text("abc abd acb " * 200, encoding="utf-8")
    result = train(tiny().build(), quick(), name=NAME, console=False)
    assert (result.status, steps_in(result.directory)[-1]) == ("finished", 8)


def test_a_sink_that_fails_does_not_stop_the_run(tiny, quick, monkeypatch, capsys):
    def fail(self, report):
        raise RuntimeError("the terminal is gone")

    monkeypatch.setattr(track.Console, "report", fail)
    result = train(tiny().build(), quick(), name=NAME)
    assert result.status == "finished"
    assert "the terminal is gone" in (result.directory / "log.txt").read_text(encoding="utf-8")


def test_the_default_run_is_everything_automatic():
    assert (Run().device, Run().precision, Run().compile, Run().resume, Run().out) == ("auto", "auto", "auto", "", None)


# -- fp16, whose loss scale is in the state


def test_a_run_in_fp16_resumes_to_the_bit_with_its_scale(tiny, quick, bytes_of, monkeypatch):
    """The first scale is so large that gradients overflow on both sides of the stop."""
    for name, value in (("START", 2.0**27), ("CEILING", 2.0**30)):
        monkeypatch.setattr(sys.modules["craft.grad.scale"], name, value)
    whole = train(tiny().build(), quick("whole", precision="fp16"), name=NAME, console=False)
    skipped = int(whole.state.scaling.skipped)
    assert 3 < skipped < 8
    assert float(whole.state.scaling.scale) == 2.0 ** (27 - skipped)
    assert int(whole.state.step) == 8
    rows = [row for row in strict(whole.directory / "metrics.jsonl") if "train/loss_scale" in row]
    assert all(row["train/overflow"] > 0 for row in rows[:2])  # before the stop and after it
    assert all(row["train/grad_norm"] is not None for row in rows)
    cut = quick("cut", precision="fp16")
    train(with_hook(tiny().build(), at(3, ask(signal.SIGTERM)), name="breaker"), cut, name=NAME, console=False)
    manifest = checkpoint.find(cut.out / "checkpoints")[-1].manifest
    assert manifest["extra"]["precision"] == "fp16"
    assert {"scaling.scale", "scaling.good", "scaling.skipped"} <= set(manifest["leaves"])
    resumed = train(tiny().build(), attrs.evolve(cut, resume="auto", precision="auto"), name=NAME, console=False)
    assert bytes_of(resumed.directory) == bytes_of(whole.directory)


@pytest.mark.parametrize(("first", "second"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp16", "bf16")])
def test_a_run_may_go_on_in_another_type(tiny, quick, first, second):
    run = quick("other", precision=first)
    train(with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker"), run, name=NAME, console=False)
    result = train(tiny().build(), attrs.evolve(run, resume="auto", precision=second), name=NAME, console=False)
    assert result.status == "finished"
    assert bool(result.state.scaling) == (second == "fp16")
    assert f"precision was '{first}', is '{second}'" in (run.out / "log.txt").read_text(encoding="utf-8")


def test_fp16_needs_a_state_that_can_hold_a_scale(tiny, quick):
    class Own(NamedTuple):
        step: Tensor
        halted: Tensor

    task = attrs.evolve(tiny().build(), init=lambda seed: Own(torch.tensor(0), torch.tensor(False)))
    with pytest.raises(UsageError, match="got a Own without `scaling`; fp16 needs a loss scale: use bf16 or fp32"):
        train(task, quick(precision="fp16"), name=NAME, console=False)


def test_the_best_checkpoint_outlives_the_newest(tiny, tmp_path):
    def worse(state, batch):
        return {"loss": (state.step.float() + batch.sum(), torch.ones(()))}

    task = attrs.evolve(tiny(steps=8).build(), evaluation=step.Evaluation(worse, lambda split: [torch.zeros(1)]))
    places = Checkpoints(every=1, keep=2, best="eval/loss")
    run = Run(out=tmp_path / "run", device="cpu", compile="none", checkpoint=places, evaluate=Evaluations(every=2))
    train(task, attrs.evolve(run, track=Track(wandb="off")), console=False)
    assert [found.step for found in checkpoint.find(tmp_path / "run" / "checkpoints")] == [2, 7, 8]


def test_an_unknown_best_measure_is_refused_before_the_first_step(tiny, quick):
    task, seen = tiny().build(), []
    task = attrs.evolve(task, hooks=(hooks.every(1, lambda task, state, report: seen.append(report.step)),))
    wrong = attrs.evolve(quick(), checkpoint=Checkpoints(best="eval/los"))
    with pytest.raises(UsageError, match=r"got --checkpoint\.best eval/los, .*expected one of eval/accuracy, .*eval/loss"):
        train(task, wrong, name=NAME, console=False)
    assert seen == []
    right = attrs.evolve(wrong, checkpoint=Checkpoints(best="eval/loss"))
    assert train(task, right, name=NAME, console=False).status == "finished"


def test_a_run_starts_from_the_weights_of_another(tiny, tmp_path):
    run = Run(device="cpu", compile="none", precision="fp32", track=Track(wandb="off"))
    first = train(tiny(steps=4).build(), attrs.evolve(run, out=tmp_path / "a"), console=False)
    task = tiny(steps=1, lr=1e-12).build()
    params = task.params(first.state)
    second = train(task, attrs.evolve(run, out=tmp_path / "b"), console=False, params=params)
    for name, leaf in tree.named(second.state.params).items():
        assert torch.allclose(leaf, tree.named(params)[name], atol=1e-9), name
    assert int(second.state.step) == 1
    wider = attrs.evolve(tiny().model, width=32)
    with pytest.raises(
        UsageError, match=r"the weights do not fit the model: blocks\.attention\.key is \(1, 16, 16\) there and"
    ):
        train(tiny(model=wider).build(), attrs.evolve(run, out=tmp_path / "c"), console=False, params=params)


def test_a_full_disk_in_the_middle_costs_no_step(tiny, tmp_path, monkeypatch, bytes_of):
    """Every operation of the second save fails in turn; the run ends with the bits of the run that was not disturbed."""
    second, seen = "step-00000004", []

    def run(out, hook):
        monkeypatch.setattr(disk, "HOOK", hook)
        places = Checkpoints(every=2, keep=9)
        where = Run(out=out, device="cpu", compile="none", precision="fp32", threads=1, checkpoint=places)
        train(tiny().build(), attrs.evolve(where, track=Track(wandb="off")), name=NAME, console=False)
        return {name: found for name, found in bytes_of(out).items() if second not in name}

    whole = run(tmp_path / "whole", lambda name, path, detail: seen.append(name) if second in str(path) else None)
    assert len(seen) > 8
    for number in range(1, len(seen) + 1):
        count = itertools.count(1)

        def full(name, path, detail, number=number, count=count):
            if second in str(path) and next(count) == number:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        out = tmp_path / str(number)
        assert run(out, full) == whole
        log = (out / "log.txt").read_text(encoding="utf-8")
        assert "the checkpoint of step 4 was not written: [Errno 28] No space left on device" in log


def test_a_last_state_that_is_not_saved_is_an_error(tiny, quick, monkeypatch):
    def full(name, path, detail):
        if name == "fill":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(disk, "HOOK", full)
    with pytest.raises(NotSavedError, match="the state of step 8 could not be saved"):
        train(tiny().build(), quick(), name=NAME, console=False)


# -- forked, and refused where the bits might differ


def fork(tiny, quick, path, name="fork", **changes):
    run = attrs.evolve(quick(name), fork=path)
    return train(tiny(**changes).build(), run, name=NAME, console=False)


def test_a_fork_that_changes_nothing_ends_with_the_same_parameters(done, tiny, quick):
    forked = fork(tiny, quick, done.directory / "checkpoints" / "step-00000006")
    for name, leaf in tree.named(done.state).items():
        assert torch.equal(leaf, tree.named(forked.state)[name]), name
    assert [row["step"] for row in strict(forked.directory / "metrics.jsonl")] == [8]
    told = json.loads((forked.directory / "config.json").read_text(encoding="utf-8"))["fork"]
    assert (told["run"], told["step"], told["changed"]) == (str(done.directory), 6, {})
    seal = checkpoint.open_checkpoint(done.directory / "checkpoints" / "step-00000006").manifest["seal"]
    assert told["seal"] == seal
    assert f"forked from {done.directory} after step 6; changed: nothing" in (forked.directory / "log.txt").read_text("utf-8")


def test_a_fork_goes_on_with_what_was_changed(done, tiny, quick, bytes_of):
    before = bytes_of(done.directory)
    forked = fork(tiny, quick, done.directory, steps=12, lr=0.005)
    assert int(forked.state.step) == 12
    assert forked.state.hyper["lr"].item() == pytest.approx(0.005)
    assert int(forked.state.horizon) == 12
    told = json.loads((forked.directory / "config.json").read_text(encoding="utf-8"))["fork"]["changed"]
    assert told["experiment.values.lr"] == [0.02, 0.005]
    assert told["steps"] == [8, 12]
    assert bytes_of(done.directory) == before


def test_a_fork_is_resumed_like_any_run(done, tiny, quick, bytes_of):
    whole = fork(tiny, quick, done.directory, name="whole", steps=14)
    run = attrs.evolve(quick("fork"), fork=done.directory)
    stopping = with_hook(tiny(steps=14).build(), at(9, ask(signal.SIGTERM)), name="breaker")
    train(stopping, run, name=NAME, console=False)
    train(tiny(steps=14).build(), quick("fork", resume="auto"), name=NAME, console=False)
    there, here = bytes_of(whole.directory), bytes_of(run.out)
    assert all(here[path] == there[path] for path in there if path in here)
    assert here["metrics.jsonl"] == there["metrics.jsonl"]
    assert json.loads((run.out / "config.json").read_text(encoding="utf-8"))["fork"]["run"] == str(done.directory)


def test_what_begins_with_the_state_of_another_run_is_saved_at_once(done, tiny, quick):
    """Else a kill before the first save would leave a run that begins anew with weights of its own."""
    stop = with_hook(tiny(steps=14).build(), at(9, raise_broken), name="breaker")
    with pytest.raises(Broken):
        train(stop, attrs.evolve(quick("fork"), fork=done.directory), name=NAME, console=False)
    assert steps_in(quick("fork").out)[0] == 8
    stop = with_hook(tiny().build(), at(1, raise_broken), name="breaker")
    with pytest.raises(Broken):
        train(stop, quick("warm"), name=NAME, console=False, params=done.state.params)
    assert steps_in(quick("warm").out) == [0]
    resumed = train(tiny().build(), quick("warm", resume="auto"), name=NAME, console=False)
    whole = train(tiny().build(), quick("other"), name=NAME, console=False, params=done.state.params)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(resumed.state), tree.leaves(whole.state), strict=True))


def test_a_fork_without_its_first_checkpoint_is_not_begun_anew(done, tiny, quick):
    fork(tiny, quick, done.directory, steps=14)
    for found in checkpoint.find(quick("fork").out / "checkpoints"):
        store.remove(found.path)
    with pytest.raises(UsageError, match="began with the state of another run and was stopped before it was saved"):
        train(tiny(steps=14).build(), quick("fork", resume="auto"), name=NAME, console=False)


def test_a_fork_of_nothing_is_refused(tiny, quick, tmp_path, done):
    with pytest.raises(UsageError, match="as a run, but it does not exist"):
        fork(tiny, quick, tmp_path / "none")
    with pytest.raises(store.Corrupt, match="is missing or cannot be read"):
        fork(tiny, quick, done.directory / "checkpoints" / "step-00000005")
    for changes in ({"resume": str(done.directory)}, {"init": done.directory}):
        run = attrs.evolve(quick(""), fork=done.directory, **changes)
        with pytest.raises(UsageError, match=r"got --fork with --(resume|init); give one thing to start from"):
            train(tiny().build(), run, name=NAME, console=False)


def test_exact_means_exact(tiny, quick, bytes_of):
    run = quick("exact")
    train(with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker"), run, name=NAME, console=False)
    before = bytes_of(run.out)
    other = attrs.evolve(run, resume="auto", resume_exact=True, precision="bf16")
    with pytest.raises(UsageError, match="got --resume-exact, but precision was 'fp32', is 'bf16'; bring it back"):
        train(tiny().build(), other, name=NAME, console=False)
    assert bytes_of(run.out) == before
    same = attrs.evolve(run, resume="auto", resume_exact=True)
    assert train(tiny().build(), same, name=NAME, console=False).status == "finished"
    with pytest.raises(UsageError, match="got --resume-exact without --resume"):
        train(tiny().build(), attrs.evolve(quick("new"), resume_exact=True), name=NAME, console=False)


def test_an_experiment_whose_code_was_changed_is_refused(tiny, quick, monkeypatch, bytes_of):
    run = quick("code")
    train(with_hook(tiny().build(), at(4, ask(signal.SIGTERM)), name="breaker"), run, name=NAME, console=False)
    before = bytes_of(run.out)
    found = record.experiment_files(type(tiny()))
    assert set(found) == {"experiments.char_1m"}
    monkeypatch.setattr(record, "experiment_files", lambda cls: {"experiments.char_1m": "0" * 64})
    with pytest.raises(UsageError, match=r"the code of experiments\.char_1m was changed since .*--fork"):
        train(tiny().build(), attrs.evolve(run, resume="auto"), name=NAME, console=False)
    assert bytes_of(run.out) == before
