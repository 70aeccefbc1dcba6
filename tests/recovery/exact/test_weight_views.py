"""Where a weight lies, who reads it, and biases that are given and taken back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import array_of
from onnx_subprune.recovery.exact.biases import with_biases, without_idle_biases
from onnx_subprune.recovery.exact.weight_views import Views, count_reads

CHAIN = """g (float[N,4] x) => (float[a,b] y, float[c,d] v) {
    [c] c = Cast <to=1> (w)
    [t] t = Transpose <perm=[1,0]> (c)
    [m] y = MatMul(x, t)
    [g] v = Gemm(x, c)
}"""


def test_a_weight_behind_a_chain(net):
    model = net(CHAIN, w=np.ones((4, 4), np.float64))
    view = Views(model).of("t")
    assert view is not None
    assert (view.tensor.name, view.perm, view.dims) == ("w", (1, 0), (4, 4))
    assert view.dtypes == (onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT)
    assert Views(model).of("x") is None


def test_uses_are_seen_through_chains(net):
    views = Views(net(CHAIN, w=np.ones((4, 4), np.float64)))
    assert sorted((node.name, index) for node, index in views.uses("w")) == [("g", 1), ("m", 1)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[N,4] x) => (float[a,b] y) { [m] y = MatMul(x, w) }", None),
        ("g (float[N,4] x, float[4,4] w) => (float[a,b] y) { [m] y = MatMul(x, w) }",
         "is an input of the graph with a default; export without keep_initializers_as_inputs"),
        ("g (float[N,4] x) => (float[a,b] y, float[4,4] t) { [t] t = Transpose(w)\n[m] y = MatMul(x, t) }",
         "is an output of the network too"),
        ("""g (float[N,4] x, bool c) => (float[a,b] y, float[e,f] v) { [m] y = MatMul(x, w)
            [i] v = If (c) <then_branch = t () => (float[e,f] a) { [n] a = Neg(w) },
                            else_branch = e () => (float[e,f] b) { [o] b = Abs(x) }> }""",
         "is read in the body of a loop or a branch too"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_of_a_change(net, text, reason):
    assert Views(net(text, w=(4, 4))).elsewhere("w") == reason


def test_reads_count_bodies_and_outputs(net):
    model = net("g (float[N,4] x) => (float[a,b] y) { [m] h = MatMul(x, w)\n[a] y = Add(h, h) }", w=(4, 4))
    assert count_reads(model) == {"x": 1, "w": 1, "h": 2, "y": 1}


TWO = """g (float[N,4] x) => (float[a,b] y) {
    [g1] h = Gemm(x, w1FIRST)
    [g2] y = Gemm(h, w2SECOND)
}"""


def _biases(model: onnx.ModelProto) -> list[str]:
    return [node.input[2] if len(node.input) > 2 else "" for node in model.graph.node]


@pytest.mark.parametrize(
    ("first", "second", "weights", "expected", "before"),
    [
        ("", "", ("w1", "w2"), ["g1_bias", "g2_bias"], {"g1_bias": "", "g2_bias": ""}),
        (", b", "", ("w1", "w2"), ["b", "g2_bias"], {"g2_bias": ""}),
        (", b", ", b", ("w1", "w2"), ["g1_bias", "g2_bias"], {"g1_bias": "b", "g2_bias": "b"}),
        ("", "", ("w", "w"), ["g1_bias", "g1_bias"], {"g1_bias": ""}),
        (", b", ", b", ("w", "w"), ["b", "b"], {}),
        (", b", "", ("w", "w"), ["b", "g2_bias"], {"g2_bias": ""}),
    ],
)
def test_biases_are_given_and_taken_back(net, first, second, weights, expected, before):
    text = TWO.replace("FIRST", first).replace("SECOND", second)
    text = text.replace("w1", weights[0]).replace("w2", weights[1])
    model = net(text, **dict.fromkeys(weights, (4, 4)), **({"b": (4,)} if "b" in first + second else {}))
    given, added = with_biases(model)
    assert _biases(given) == expected
    assert added == before
    assert without_idle_biases(given, added).SerializeToString() == model.SerializeToString()


def test_a_bias_that_says_something_stays(net):
    model = net(TWO.replace("FIRST", "").replace("SECOND", ""), w1=(4, 4), w2=(4, 4))
    given, added = with_biases(model)
    for tensor in given.graph.initializer:
        if tensor.name == "g2_bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(array_of(tensor) + 1, tensor.name))
    assert _biases(without_idle_biases(given, added)) == ["", "g2_bias"]
