import pytest
import torch

from tools.bench.sections import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_says_so(session):
    assert list(gpu.run(session, {})) == [("not_run", "torch finds no GPU on this machine")]
