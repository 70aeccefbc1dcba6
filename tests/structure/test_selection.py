"""Which units stay, the whole way through the program: what can be spared is spared, and what that loses is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target, analyse, prune
from onnx_subprune.model import open_session, run
from onnx_subprune.network.verify import relative_error
from onnx_subprune.pipeline import calibrate
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.subspace import METHODS

RNG = np.random.default_rng(11)
SIZE, KEPT = 12, 7
# Copies of some of the first seven channels, and one that is the sum of two.
MIX = np.eye(KEPT)[[0, 2, 2, 5, 6]] + np.array([0, 0, 0, 0, 1])[:, None] * np.eye(KEPT)[1]
IMAGES = RNG.standard_normal((64, 8, 6, 6)).astype(np.float32)
CHAIN = "[c1] h = Conv(x, w1, b1) [c2] y = Conv(h, w2)"
TEXTS = {
    "one consumer": CHAIN,
    "several consumers": "[c1] h = Conv(x, w1, b1) [c2] p = Conv(h, w2) [c3] q = Conv(h, w3) [s] y = Add(p, q)",
    "a concatenated axis": "[c1] h = Conv(x, w1, b1) [c0] u = Conv(x, w0) [cat] k = Concat <axis=1> (h, u) "
    "[c2] y = Conv(k, w4)",
    "strides": "[c1] h = Conv(x, w1, b1) [c2] y = Conv <strides=[2, 2], pads=[1,1,1,1]> (h, w5)",
    "a flattened map": "[c1] h = Conv(x, w1, b1) [f] k = Flatten(h) [c2] y = Gemm <alpha=0.5> (k, w6)",
}
AXES = dict.fromkeys(TEXTS, "float[a,b,c,d] y") | {"a flattened map": "float[a,b] y"}


def _network(net: Callable[..., onnx.ModelProto], name: str) -> onnx.ModelProto:
    own = RNG.standard_normal((KEPT, 9)).astype(np.float32)
    both = np.concatenate([own, MIX.astype(np.float32) @ own])[RNG.permutation(SIZE)]
    shapes = {"w2": (5, SIZE, 1, 1), "w3": (5, SIZE, 1, 1), "w4": (5, SIZE + 3, 1, 1), "w5": (5, SIZE, 3, 3)}
    shapes |= {"w0": (3, 8, 1, 1), "w6": (SIZE * 36, 5)}
    weights = {
        name_: RNG.standard_normal(shape).astype(np.float32) for name_, shape in shapes.items() if name_ in TEXTS[name]
    }
    text = f"g (float[1,8,6,6] x) => ({AXES[name]}) {{ {TEXTS[name]} }}"
    return net(text, w1=both[:, :8].reshape(SIZE, 8, 1, 1), b1=np.ascontiguousarray(both[:, 8]), **weights)


@pytest.mark.parametrize("name", TEXTS)
def test_channels_that_others_stand_in_for_go_without_a_trace(net, name):
    model = _network(net, name)
    # h and u have two directions in common: of the eight of x, h holds seven and u three.
    kept = KEPT - 2 if name == "a concatenated axis" else KEPT
    options = Options(target=Target("units", kept / SIZE), recovery="channel", only=("c1",), threads=1, batch_size=2)
    result = prune(model, {"x": IMAGES}, options)
    assert [len(group.kept) for group in result.plan.groups if group.name == "c1"] == [kept]
    feeds = {"x": IMAGES[:1]}
    expected, found = (run(open_session(one), feeds)["y"] for one in (model, result.model))
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("name", ["one consumer", "strides", "a flattened map"])
def test_the_loss_is_the_squared_error_per_sample(net, name):
    """White images make errors at different places independent, as the loss takes them to be."""
    model = _network(net, name)
    images = RNG.standard_normal((2048, 8, 6, 6)).astype(np.float32)
    options = Options(target=Target("units", 3 / SIZE), recovery="channel", only=("c1",), threads=1, batch_size=1)
    analysis = analyse(model, {"x": (1, 8, 6, 6)})
    statistics = calibrate(model, {"x": images}, options)
    group = next(group for group in analysis.structure.prunable if group.name == "c1")
    [curve] = rank_groups(analysis, [group], statistics, options)
    pruned = prune(model, None, options, statistics=statistics).model
    dense, sparse = open_session(model), open_session(pruned)
    errors = [(run(dense, {"x": x[None]})["y"] - run(sparse, {"x": x[None]})["y"]) ** 2 for x in images[:512]]
    assert curve.loss is not None
    # A padded Conv of stride 2 reads a little more than a quarter of the positions.
    assert np.sum(errors) / 512 == pytest.approx(curve.loss[3], rel=0.3 if name == "strides" else 0.1)


@pytest.mark.parametrize("select", METHODS)
def test_every_selection_tells_the_loss(net, select):
    model = _network(net, "several consumers")
    options = Options(target=Target("units", 0.5), select=select, recovery="channel", threads=1, batch_size=2)
    analysis = analyse(model, {"x": (1, 8, 6, 6)})
    statistics = calibrate(model, {"x": IMAGES}, options)
    [curve] = rank_groups(analysis, analysis.structure.prunable, statistics, options)
    [best] = rank_groups(
        analysis, analysis.structure.prunable, statistics, Options(target=options.target, select="obs", threads=1)
    )
    assert curve.loss is not None
    assert best.loss is not None
    assert curve.loss.shape == (SIZE + 1,)
    assert curve.loss[KEPT] >= best.loss[KEPT]
    assert curve.loss[0] == pytest.approx(best.loss[0])
    assert best.loss[KEPT] < 1e-3 * best.loss[0] < curve.loss[0]
