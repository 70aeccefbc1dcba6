"""Biases that layers are lent: of the right size, type and name, and gone again where they say nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import array_of, open_session, run
from onnx_subprune.recovery.exact.biases import with_biases, without_idle_biases

PRODUCT = "g (float[N,4] x) => (float[a,b] y) {{ [m] {text} }}"


def _stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: array_of(tensor) for tensor in model.graph.initializer}


def _set(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))


@pytest.mark.parametrize(
    ("text", "weight", "outputs"),
    [
        ("[c] y = Conv (x, w)", (6, 4, 3, 3), 6),
        ("[c] y = Conv <group=2> (x, w)", (6, 2, 3, 3), 6),
        ("[c] y = ConvTranspose (x, w)", (4, 5, 3, 3), 5),
        ("[c] y = ConvTranspose <group=2> (x, w)", (4, 5, 3, 3), 10),
    ],
)
def test_a_bias_has_an_entry_for_each_channel_and_changes_nothing(net, text, weight, outputs) -> None:
    model = net(f"g (float[2,4,6,6] x) => (float[a,b,c,d] y) {{ {text} }}", w=weight)
    given, added = with_biases(model)
    assert added == {"c_bias": ""}
    assert _stored(given)["c_bias"].shape == (outputs,)
    onnx.checker.check_model(given)
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
    before, after = (run(open_session(each, threads=1), {"x": x})["y"] for each in (model, given))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_bias_has_the_type_that_the_node_computes_with(net, dtype) -> None:
    kind = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    text = f"g ({kind}[N,4] x) => ({kind}[a,b] y) {{ [m] y = Gemm(x, w) }}"
    assert _stored(with_biases(net(text, w=np.ones((4, 3), dtype)))[0])["m_bias"].dtype == dtype
    cast = f"g ({kind}[N,4] x) => ({kind}[a,b] y) {{ [c] c = CastLike(w, x)\n[m] y = Gemm(x, c) }}"
    assert not with_biases(net(cast, w=np.ones((4, 3), np.float32)))[1], "a weight that is computed"


def test_a_name_that_is_taken_gets_a_number(net) -> None:
    text = "g (float[N,4] x, float[4] m_bias) => (float[a,b] y) { [m] h = Gemm(x, w)\n[a] y = Add(h, m_bias) }"
    given, added = with_biases(net(text, w=(4, 4)))
    assert added == {"m_bias1": ""}
    assert given.graph.node[0].input[2] == "m_bias1"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("y = Gemm(x, w, b)", {"b": (3,)}),
        ("y = MatMul(x, w)", {}),
        ("y = com.example.Gemm(x, w)", {}),
    ],
)
def test_nodes_that_need_none(net, text, weights) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>\n{PRODUCT.format(text=text)}'
    )
    for name, shape in {"w": (4, 3), **weights}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    given, added = with_biases(model)
    assert added == {}
    assert given.SerializeToString() == model.SerializeToString()


def test_the_model_itself_is_not_changed(net) -> None:
    model = net(PRODUCT.format(text="y = Gemm(x, w)"), w=(4, 3))
    before = model.SerializeToString()
    with_biases(model)
    assert model.SerializeToString() == before


SHARED = """g (float[N,4] x) => (float[a,b] y, float[c,d] z) {
    [g1] y = Gemm(x, w1, b)
    [g2] z = Gemm(x, w2, b)
}"""


def test_a_bias_of_several_weights_is_taken_apart_and_joined_again(net) -> None:
    model = net(SHARED, w1=(4, 3), w2=(4, 3), b=(3,))
    given, added = with_biases(model)
    assert added == {"g1_bias": "b", "g2_bias": "b"}
    np.testing.assert_array_equal(_stored(given)["g1_bias"], _stored(model)["b"])
    _set(given, "g2_bias", np.ones(3, np.float32))
    back = without_idle_biases(given, added)
    # The first says what b says, so b is its bias again; the second has learnt something of its own.
    assert [node.input[2] for node in back.graph.node] == ["b", "g2_bias"]
    assert set(_stored(back)) == {"w1", "w2", "b", "g2_bias"}


def test_a_bias_that_nobody_reads_any_more_goes(net) -> None:
    given, added = with_biases(net(SHARED, w1=(4, 3), w2=(4, 3), b=(3,)))
    for name in added:
        _set(given, name, np.full(3, len(name), np.float32))
    _set(given, "g1_bias", np.zeros(3, np.float32))
    back = without_idle_biases(given, added)
    assert set(_stored(back)) == {"w1", "w2", "g1_bias", "g2_bias"}


def test_a_bias_that_the_caller_may_replace_stays(net) -> None:
    text = SHARED.replace("float[N,4] x)", "float[N,4] x, float[3] b)")
    assert with_biases(net(text, w1=(4, 3), w2=(4, 3), b=(3,)))[1] == {}


def test_a_bias_that_is_read_through_an_identity_is_told_by_its_readers(net) -> None:
    """It goes with two weights, so each layer gets one of its own; the other reader keeps the old one."""
    text = """g (float[N,4] x) => (float[a,b] y) {
        [g1] h = Gemm(x, w1, b)
        [i] c = Identity(b)
        [a] y = Add(h, c)
    }"""
    given, added = with_biases(net(text, w1=(4, 3), b=(3,)))
    assert added == {"g1_bias": "b"}
    assert [list(node.input) for node in given.graph.node] == [["x", "w1", "g1_bias"], ["b"], ["h", "c"]]
