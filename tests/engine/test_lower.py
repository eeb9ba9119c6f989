"""Lowering: what is put in other terms is the same function, and what is no number stays none."""

import math

import pytest
import torch
from torch.nn import functional

from craft.engine import compile_function
from craft.engine.lower import decompositions

ATEN = torch.ops.aten


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_gelu_and_its_derivative_are_torchs(dtype, approximate):
    table, tolerance = decompositions(), {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}[dtype]
    x = torch.linspace(-8, 8, 401, dtype=dtype)
    grad = torch.linspace(1, 2, 401, dtype=dtype)
    made = table[ATEN.gelu.default](x, approximate=approximate)
    back = table[ATEN.gelu_backward.default](grad, x, approximate=approximate)
    assert made.dtype == back.dtype == dtype
    assert torch.allclose(made, functional.gelu(x, approximate=approximate), rtol=tolerance, atol=tolerance)
    assert torch.allclose(back, ATEN.gelu_backward(grad, x, approximate=approximate), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.9, torch.tensor(0.3), torch.linspace(0, 0.99, 5)])
def test_a_blend_is_torchs(weight):
    start, end = torch.linspace(-3, 3, 5), torch.linspace(10, -10, 5)
    key = ATEN.lerp.Tensor if isinstance(weight, torch.Tensor) else ATEN.lerp.Scalar
    assert torch.allclose(decompositions()[key](start, end, weight), torch.lerp(start, end, weight), rtol=1e-6)


@pytest.fixture(scope="module")
def exponentials():
    """Compile one program of exponentials: 40 numbers, so that there is a rest behind the vectors."""
    x = torch.zeros(43)
    return compile_function(lambda x: (x.exp(), torch.sigmoid(x), torch.tanh(x), x.double().exp(), x.bfloat16().exp()), x)


def test_the_fast_exponential_is_within_its_units(exponentials):
    for low in (-87.0, -1.0, 0.0, 40.0):
        x = torch.linspace(low, low + 40, 43)
        fast, sigmoid, tanh, wide, _ = exponentials(x)
        # below -86.6 it is 0, where the smallest number with all its digits is 1.2e-38
        assert ((fast.double() - x.double().exp()).abs() <= 20 * 2**-23 * x.double().exp() + 2.4e-38 * (x < -86.6)).all()
        assert torch.allclose(sigmoid, torch.sigmoid(x), rtol=1e-5, atol=1e-37)
        assert torch.allclose(tanh, torch.tanh(x), rtol=1e-5)
        assert torch.allclose(wide, x.double().exp(), rtol=1e-12)


@pytest.mark.parametrize("place", [0, 42])  # among the vectors, and in the rest
def test_what_is_no_number_stays_none(exponentials, place):
    """A gate that makes 0 of it would hide it from the step, which halts on it."""
    x = torch.zeros(43)
    x[place] = math.nan
    for found in exponentials(x):
        assert found[place].isnan()
        assert found.isnan().sum() == 1
    for end, expected in ((math.inf, (math.inf, 1, 1, math.inf, math.inf)), (-math.inf, (0, 0, -1, 0, 0))):
        x[place] = end
        assert tuple(float(found[place]) for found in exponentials(x)) == expected
