"""Weights in Constant nodes are fitted, and stay in their nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.recovery.exact.constant_nodes import stored_as_initializers

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(3)


def _in_nodes(model: onnx.ModelProto, *kept: str) -> onnx.ModelProto:
    """Return a copy whose initializers are Constant nodes, each before its first reader, but for those kept."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    moved = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in kept}
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in kept)
    done: set[str] = set()
    for node in model.graph.node:
        for name in node.input:
            if name in moved and name not in done:
                done.add(name)
                copy.graph.node.append(onnx.helper.make_node("Constant", [], [name], value=moved[name]))
        copy.graph.node.append(node)
    return copy


def _model(net, mixtures: bool = True) -> onnx.ModelProto:
    first = RNG.standard_normal((KEPT, 3)) / 2
    last = RNG.standard_normal((SIZE - KEPT, KEPT)) @ first / 2 if mixtures else RNG.standard_normal((SIZE - KEPT, 3))
    text = """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
        [c1] h = Conv(x, w1)
        [c2] k = Conv <pads=[1,1,1,1]> (h, w2, b2)
        [r] y = Clip(k, low)
    }"""
    w1 = np.concatenate([first, last]).astype(np.float32).reshape(SIZE, 3, 1, 1)
    return net(text, w1=w1, w2=(4, SIZE, 3, 3), b2=(4,), low=np.float32(-1))


@pytest.mark.parametrize("kept", [(), ("w1",), ("b2",)])
def test_weights_in_nodes_are_fitted(net, pruned, distance, kept):
    model = _in_nodes(_model(net), *kept)
    units = {"c1": range(KEPT)}
    assert distance(model, pruned(model, units, recovery="none").model) > 3e-2
    found = pruned(model, units)
    assert distance(model, found.model) < 1e-5
    assert {"c1", "c2"} == {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]
    by_channel = pruned(model, units, recovery="channel").model
    operators = [[node.op_type for node in each.graph.node] for each in (found.model, by_channel)]
    assert operators[0] == operators[1]


def test_they_come_back_as_they_were(net):
    model = _in_nodes(_model(net))
    stored = stored_as_initializers(model)
    assert [node.op_type for node in stored.model.graph.node] == ["Conv", "Conv", "Clip"]
    copy = onnx.ModelProto()
    copy.CopyFrom(stored.model)
    assert stored.as_nodes(copy).SerializeToString() == model.SerializeToString()


def test_constants_that_are_no_weights_stay_nodes(net):
    model = _in_nodes(_model(net), "w1", "w2", "b2")
    assert "Constant" in [node.op_type for node in model.graph.node]
    assert stored_as_initializers(model).model is model
