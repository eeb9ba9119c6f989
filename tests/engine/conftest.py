"""A task that compiles as quickly as any: a line through points, by descent with momentum and without random draws."""

import pytest
import torch

from craft import grad, optim, rng, step
from craft.step import Task

TRANSFORM = optim.chain(optim.trace(0.1), optim.scale_by_rate(0.1))


class Points:
    """Four points a step."""

    fingerprint = "points"
    tokens = 4

    def batch(self, step):
        x_BD = rng.normal(rng.fold_in(rng.key(torch.tensor(7)), torch.tensor(step)), (4, 3))
        return {"x": x_BD, "y": x_BD.sum(-1)}

    def describe(self):
        return {"name": "points"}


def squares(params, batch, ctx):
    return (batch["x"] @ params["w"] - batch["y"]).square().mean() * (1.0 + ctx.hyper["more"]), {}


@pytest.fixture
def points():
    def init(seed):
        return step.start({"w": torch.full((3,), 0.1)}, TRANSFORM, steps=10, seed=seed, hyper={"more": 0.5 * seed})

    return Task(step=step.build(grad.reverse(squares), TRANSFORM), init=init, data=Points(), steps=10)
