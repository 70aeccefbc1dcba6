"""FusedConv, FusedGemm and FusedMatMul are fitted to what their activations read, and stay fused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import array_of, input_specs, open_session, run
from onnx_subprune.recovery.exact import Networks, Refit, Settings, refit
from onnx_subprune.recovery.exact.fused_nodes import names_in, take_apart

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(9)
DOMAINS = 'opset_import: ["" : 17, "com.microsoft" : 1]'


def _net(text: str, opset: int = 17, **weights: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    domains = DOMAINS.replace("17", str(opset))
    model = onnx.parser.parse_model(f"<ir_version: 8, {domains}>\n{text}")
    for name, spec in weights.items():
        values = spec if isinstance(spec, np.ndarray) else rng.standard_normal(spec) / np.sqrt(np.prod(spec[1:]) or 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
    return model


def _mixtures(*shape: int) -> np.ndarray:
    """Random weights [SIZE, ...] whose last rows are mixtures of the first."""
    first = RNG.standard_normal((KEPT, *shape)) / 2
    mix = RNG.standard_normal((SIZE - KEPT, KEPT)) / 2
    return np.concatenate([first, np.tensordot(mix, first, axes=1)]).astype(np.float32)


def _refit(dense: onnx.ModelProto, damaged: onnx.ModelProto, data: Any) -> Refit:
    opened = open_data(data, input_specs(dense))
    return refit(Networks(dense, damaged, lambda _, value: value), opened, Settings(threads=1, batch_size=8))


def _damaged(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(2)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            values = array_of(tensor) + 0.3 * rng.standard_normal(tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return copy


ACTIVATIONS = [
    'activation="Relu"',
    'activation="Sigmoid"',
    'activation="Tanh"',
    'activation="LeakyRelu", activation_params=[0.1]',
    'activation="HardSigmoid", activation_params=[0.3, 0.4]',
    'activation="Clip", activation_params=[-1.0, 1.0]',
]
CONV = """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
    [c1] h = Conv(x, w1)
    [f1] f = com.microsoft.FusedConv <pads=[1,1,1,1], ACTIVATION> (h, w2BIAS)
    [c3] y = Conv(f, w3)
}"""


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", ["", ", b2"])
def test_a_fused_convolution_reads_mixtures(pruned, distance, activation, bias):
    model = _net(
        CONV.replace("ACTIVATION", activation).replace("BIAS", bias),
        w1=_mixtures(3).reshape(SIZE, 3, 1, 1), w2=(6, SIZE, 3, 3), w3=(2, 6, 1, 1), **({"b2": (6,)} if bias else {}),
    )  # fmt: skip
    kept = {"c1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept)
    assert distance(model, found.model) < 1e-5
    assert "f1" in {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "FusedConv", "Conv"]


def test_a_sum_inside_a_fused_convolution_is_its_shortcut(distance):
    """What the first layer broke is part of what the second adds to: it makes up for the drift."""
    text = """g (float[N,4,6,6] x) => (float[a,b,c,d] y) {
        [c1] u = Conv(x, w1)
        [a1] s = Add(u, x)
        [c2] k = Conv(s, w2)
        [f2] y = com.microsoft.FusedConv <activation="Tanh"> (k, w3, b3, s)
    }"""
    model = _net(text, w1=(4, 4, 1, 1), w2=(4, 4, 1, 1), w3=(4, 4, 1, 1), b3=(4,))
    lost = _damaged(model, "w1")
    lost.graph.output.append(onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [4, 4, 1, 1]))
    rng = np.random.default_rng(0)
    found = _refit(model, lost, {"x": rng.standard_normal((60, 4, 6, 6)).astype(np.float32)})
    assert [len(layer.factors) for layer in found.layers] == [1, 2]
    unseen = {"x": rng.standard_normal((4, 4, 6, 6)).astype(np.float32)}
    expected = run(open_session(model, threads=1), unseen)["y"]
    assert np.abs(run(open_session(found.model, threads=1), unseen)["y"] - expected).max() < 1e-4
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Add", "Conv", "FusedConv"]


@pytest.mark.parametrize(
    "text",
    [
        '[f1] f = com.microsoft.FusedGemm <activation="Relu"> (h, w2, b2)',
        '[f1] f = com.microsoft.FusedGemm <activation="Tanh", alpha=0.5, beta=2.0> (h, w2, b2)',
        '[f1] f = com.microsoft.FusedGemm <activation="LeakyRelu", activation_alpha=0.2> (h, w2)',
        "[f1] f = com.microsoft.FusedMatMul <alpha=0.5> (h, w2)",
        "[f1] f = com.microsoft.FusedMatMul <alpha=2.0, transB=1> (h, w2)",
        "[f1] k = com.microsoft.FusedMatMul <alpha=2.0> (h, w2)\n[a] f = Add(k, b2)",
    ],
)
def test_fused_matrix_products(pruned, distance, text):
    model = _net(
        f"g (float[4,6] x) => (float[a,b] y) {{ [m1] h = MatMul(x, w1)\n{text}\n[m3] y = MatMul(f, w3) }}",
        w1=np.ascontiguousarray(_mixtures(6).T), w2=(4, SIZE) if "transB" in text else (SIZE, 4), w3=(4, 3),
        **({"b2": (4,)} if "b2" in text else {}),
    )  # fmt: skip
    kept = {"m1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept)
    assert distance(model, found.model) < 1e-5
    assert "f1" in {layer.name for layer in found.fit.layers}


def test_an_activation_that_is_not_known_is_the_reason(net, draw):
    model = _net(
        'g (float[N,6] x) => (float[a,b] y) { [f] y = com.microsoft.FusedGemm <activation="Softplus"> (x, w) }',
        w=(6, 4),
    )
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert found.left == {"f": "what its activation 'Softplus' reads is out of sight"}


@pytest.mark.parametrize("opset", [8, 17])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_node_taken_apart_computes_what_it_did(draw, activation, opset):
    text = f"""g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{
        [f1] h = com.microsoft.FusedConv <pads=[1,1,1,1], group=1, {activation}> (x, w, b, x)
        [f2] y = com.microsoft.FusedConv <{activation}> (h, w)
    }}"""
    model = _net(text, opset, w=(3, 3, 3, 3), b=(3,))
    apart = take_apart(model, names_in(model))
    assert not [node for node in apart.model.graph.node if node.domain]
    assert set(apart.stands_for.values()) == {"h", "y"}
    feeds = draw(model, 2)
    one, other = (run(open_session(each, threads=1), feeds)["y"] for each in (model, apart.model))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    copy = onnx.ModelProto()
    copy.CopyFrom(apart.model)
    assert apart.fuse(copy).SerializeToString() == model.SerializeToString()


def test_a_network_without_fused_nodes_is_the_same_object(net):
    model = net("g (float[N,4] x) => (float[a,b] y) { [m] y = MatMul(x, w) }", w=(4, 4))
    assert take_apart(model, names_in(model)).model is model


def test_names_that_are_taken_leave_a_node_as_it_is():
    model = _net(
        'g (float[N,6] x) => (float[a,b] y) { [f] y = com.microsoft.FusedGemm <activation="Relu"> (x, w) }', w=(6, 4)
    )
    apart = take_apart(model, {"y (product)"})
    assert [node.op_type for node in apart.model.graph.node] == ["FusedGemm"]
