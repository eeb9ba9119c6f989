"""On a GPU: the same updates as on the CPU, the same bits after an interruption, memory that runs out, text."""

import os
import signal

import attrs
import pytest
import torch

from craft import hooks, optim, tree
from craft.cli.commands import generate_text
from craft.engine import Engine, peak_megabytes
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.models.preset import gpt2
from craft.train import OutOfMemoryError, train

DEVICE = os.environ.get("CRAFT_TEST_GPU", "cuda")
"""Another device, so that these tests themselves are tried where there is no GPU."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # torch's own, of a first compilation
]
NAME = "char_1m"
MODELS = {
    "default": Sequence(width=32, depth=2, dropout=0.1, pattern=(Attention(heads=2), FeedForward(expand=2.0))),
    "recurrent": Sequence(width=32, depth=2, pattern=(Recurrence(), FeedForward(expand=2.0))),
    "gpt2": attrs.evolve(gpt2(width=32, depth=2, heads=2, context=16), std=0.1),
}


def losses(task, device, mode, dtype=torch.float32, number=5):
    machine = Engine(torch.device(device), dtype, mode, 1)
    state = machine.place(task.init(0))
    program = machine.step(task, state, machine.send(task.data.batch(0)))
    found = []
    for index in range(number):
        state, metrics = program(state, machine.send(task.data.batch(index)))
        found.append(float(metrics["loss"]))
    return found


@pytest.mark.parametrize("mode", ["none", "block", "step"])
@pytest.mark.parametrize("name", MODELS)
def test_it_takes_the_steps_of_a_cpu(tiny, name, mode):
    task = tiny(model=MODELS[name], optimizer=optim.AdamW(), lr=0.01).build()
    assert losses(task, DEVICE, mode) == pytest.approx(losses(task, "cpu", "none"), rel=2e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("mode", ["none", "step"])
def test_half_precision_learns_as_well(tiny, quick, mode, precision):
    whole = train(tiny(steps=30).build(), quick("whole", device="cpu"), name=NAME, console=False)
    half = train(
        tiny(steps=30).build(), quick("half", device=DEVICE, precision=precision, compile=mode), name=NAME, console=False
    )
    assert half.summary["eval/loss"] == pytest.approx(whole.summary["eval/loss"], rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["none", "block", "step"])
def test_interrupted_it_ends_with_the_same_bits(tiny, quick, bytes_of, mode, precision):
    how = {"device": DEVICE, "compile": mode, "precision": precision}
    whole = train(tiny().build(), quick("whole", **how), name=NAME, console=False)
    again = train(tiny().build(), quick("again", **how), name=NAME, console=False)
    assert bytes_of(whole.directory) == bytes_of(again.directory)

    def stop(task, state, report):
        if report.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    task = attrs.evolve(tiny().build(), hooks=(hooks.every(1, stop, name="stop"),))
    stopped = train(task, quick("stopped", **how), name=NAME, console=False)
    assert stopped.status == "stopped"
    resumed = train(tiny().build(), quick("stopped", resume="auto", **how), name=NAME, console=False)
    last = {name: found for name, found in bytes_of(whole.directory).items() if "step-" not in name or "step-00000008" in name}
    found = bytes_of(resumed.directory)
    assert {name: found.get(name) for name in last} == last


@pytest.mark.parametrize("mode", ["none", "step"])
def test_a_pack_takes_the_steps_of_its_trials(tiny, mode):
    task = tiny(optimizer=optim.AdamW()).build()
    machine = Engine(torch.device(DEVICE), torch.float32, mode, 1)
    states = [task.init(seed) for seed in range(3)]
    pack = machine.place(tree.map(lambda *leaves: torch.stack(leaves), *states))
    packed = attrs.evolve(task, step=torch.func.vmap(task.step, in_dims=(0, None), randomness="error"))
    program = machine.step(packed, pack, machine.send(task.data.batch(0)))
    for index in range(4):
        pack, metrics = program(pack, machine.send(task.data.batch(index)))
    alone = []
    for seed in range(3):
        state = machine.place(task.init(seed))
        run = attrs.evolve(machine, mode="none").step(task, state, machine.send(task.data.batch(0)))
        for index in range(4):
            state, metric = run(state, machine.send(task.data.batch(index)))
        alone.append(float(metric["loss"]))
    assert metrics["loss"].tolist() == pytest.approx(alone, rel=2e-3)


@pytest.mark.skipif(DEVICE != "cuda", reason="a CPU has no fraction of its memory")
def test_memory_that_runs_out_is_one_sentence(tiny, quick):
    big = Sequence(width=512, depth=4)
    torch.cuda.empty_cache()
    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2**26) / whole))
    try:
        with pytest.raises(OutOfMemoryError, match="--accumulate"):
            train(tiny(model=big, batch=32, context=64, accumulate=1).build(), quick(device=DEVICE), name=NAME, console=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_it_writes_the_text_of_a_cpu(tiny, quick, capsys):
    result = train(tiny(steps=40).build(), quick(device=DEVICE), name=NAME, console=False)
    texts = []
    for device in (DEVICE, "cpu"):
        capsys.readouterr()
        asked = ["--prompt", "the ", "--tokens", "20", "--temperature", "0", "--precision", "fp32", "--device", device]
        assert generate_text([str(result.directory), *asked]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("the ")
    assert texts[0] == texts[1]


@pytest.mark.skipif(DEVICE != "cuda", reason="its memory is the process's")
def test_its_memory_is_what_its_tensors_took():
    device = torch.device("cuda", torch.cuda.current_device())
    before = torch.cuda.memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    torch.ones(2**24, device=device)
    assert peak_megabytes(device) == pytest.approx(before + 64, abs=1)
