"""Devices, threads and types: what is asked for, or what this machine is fast with."""

import pytest
import torch

from craft.engine import device
from craft.engine.device import compute_type, products, resolve_device, set_threads
from craft.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the machine has a number of CUDA devices."""

    def pretend(number, *, bf16=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **asked: bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return pretend


def test_what_is_not_there_is_refused_with_what_is(gpus):
    gpus(2)
    for name in ("cuda:2", "mps", "gpu", "", "cpu:1"):
        with pytest.raises(
            UsageError, match=f"got device '{name}'; this machine has cpu, cuda:0, cuda:1: name one of them, or auto"
        ):
            resolve_device(name)
    gpus(0)
    with pytest.raises(UsageError, match="got device 'cuda'; this machine has cpu: name"):
        resolve_device("cuda")


def test_names_and_the_automatic_choice(gpus, monkeypatch):
    gpus(0)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    gpus(2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


def test_threads_are_set_and_told():
    assert set_threads(2) == torch.get_num_threads() == 2
    assert set_threads(0) == 2  # none asked for: what is in force stays


def test_a_named_precision_is_taken():
    assert compute_type("bf16", CPU) == torch.bfloat16
    assert compute_type("fp16", CPU) == torch.float16
    assert compute_type("fp32", torch.device("cuda:0")) == torch.float32


@pytest.mark.parametrize(("supported", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_takes_bf16_where_it_has_it(gpus, supported, chosen):
    gpus(1, bf16=supported)
    assert compute_type("auto", torch.device("cuda:0")) == chosen


@pytest.mark.parametrize(("gain", "chosen"), [(1.0, torch.float32), (1.4, torch.float32), (1.6, torch.bfloat16)])
def test_a_cpu_takes_bf16_only_where_it_is_clearly_faster(monkeypatch, gain, chosen):
    monkeypatch.setattr(device, "products", lambda dtype: gain if dtype == torch.bfloat16 else 1.0)
    assert compute_type("auto", CPU) == chosen


def test_a_young_device_takes_fp32():
    assert compute_type("auto", torch.device("mps")) == torch.float32


def test_the_rate_of_products_is_believable():
    assert 1e8 < products(torch.float32, size=64, tries=2) < 1e14
