import numpy as np
import pytest

from tools.bench.contestants import Contestant
from tools.bench.material import make
from tools.bench.peers import craft, plain, recipe
from tools.bench.setup import Setup


def test_the_rate_climbs_and_falls_along_a_cosine():
    assert recipe.rate(0, 2000) == pytest.approx(1e-3 / 101)
    assert recipe.rate(100, 2000) == pytest.approx(1e-3)
    assert recipe.rate(1050, 2000) == pytest.approx(5.5e-4)
    assert recipe.rate(1999, 2000) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("peer", [plain, craft])
def test_a_peer_trains_to_a_goal_and_stops_there(peer, tiny, tmp_path):
    ids = np.arange(400) % tiny.vocabulary
    for name in ("train", "validation", "test"):
        np.save(tmp_path / f"{name}.npy", ids)
    options = {"updates": 400, "every": 10, "goal": 1.5, "dropout": 0.1, "seed": 0, "tokens": str(tmp_path)}
    variant = "eager" if peer is plain else "none"
    folder = str(make(tiny, tmp_path / "material").folder)
    found = peer.quality(Setup(Contestant(peer.__name__.rpartition(".")[2], variant), tiny, folder, 1, options=options))
    assert found["reached"]
    assert found["loss"] <= 1.5
    assert found["updates"] < 400
    assert found["evaluating"] > 0
    assert found["test"] == pytest.approx(found["loss"], abs=0.01)
