import pytest

from tools.bench.cases import CASES, GPU_CASES
from tools.bench.peers.plain import GPT


@pytest.mark.parametrize("name", ["1m", "10m"])
def test_parameters_are_those_of_the_model(name):
    case = CASES[name]
    model = GPT(vocabulary=case.vocabulary, context=case.context, width=case.width, depth=case.depth, heads=case.heads)
    assert sum(value.numel() for value in model.parameters()) == case.parameters


def test_flops_are_six_a_parameter_and_the_attention():
    case = CASES["1m"]
    attention = 12 * 4 * 256 * 128
    assert case.multiplied == case.parameters - 256 * 128
    assert case.flops == 12 * 256 * (6 * case.multiplied + attention)


def test_the_small_gpt2_has_124_million():
    assert GPU_CASES["124m"].parameters == pytest.approx(124.4e6, rel=2e-3)
