"""A tensor to compare networks at is refused where that would say nothing, with the reason and the way out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model.named_points import check_points

SHAPES = {"w": (4, 6), "v": (6, 6)}


def build(text: str, outputs: str = "float[N,6] y", inputs: str = "float[N,4] x") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g ({inputs}) => ({outputs}) {{ {text} }}'
    )
    read = {name for node in model.graph.node for name in node.input}
    for name in read & SHAPES.keys():
        values = np.ones(SHAPES[name], np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


PLAIN = build("[first] hidden = MatMul(x, w) act = Relu(hidden) y = MatMul(act, v)")


@pytest.mark.parametrize("names", [(), ("hidden",), ("act", "y"), ("y", "y")])
def test_floats_that_depend_on_weights_will_do(names: tuple[str, ...]) -> None:
    check_points(PLAIN, names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hiden", "which the model does not have; the nearest is 'hidden'"),
        ("", "which the model does not have; name another, such as 'y'"),
        ("first", "which is a node; it gives 'hidden'"),
        ("x", "which is an input or a weight and the same in all networks; name another, such as 'y'"),
        ("w", "which is an input or a weight and the same in all networks; name another, such as 'y'"),
    ],
)
def test_a_name_of_no_tensor_is_refused_with_what_is_near(name: str, reason: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_points(PLAIN, ["act", name])
    assert str(caught.value) == f"expected a tensor to compare networks at, found '{name}', {reason}"


H = "h = MatMul(x, w)"
LENGTH = f"""{H} m = ReduceMax<axes = [0], keepdims = 0>(h) most = ReduceMax<keepdims = 0>(m) n = Cast<to = 7>(most)
    zero = Constant<value = int64 {{0}}>() one = Constant<value = int64 {{1}}>() steps = Range(zero, n, one)
    floats = Cast<to = 1>(steps) last = Constant<value_ints = [1]>() column = Unsqueeze(floats, last)
    long = Add(column, m)"""


@pytest.mark.parametrize(
    ("text", "outputs", "name", "reason"),
    [
        (f"{H} y = ArgMax(h)", "int64[A,B] y", "y", "which holds int64 where floats are compared; name another"),
        (f"{H} r = Round(h) y = Add(r, h)", "float[N,6] y", "r", "a decision of Round 'r', which is given to all"),
        ("s = Neg(x) y = MatMul(s, w)", "float[N,6] y", "s", "which inputs and decisions alone make"),
        (f"{LENGTH} y = Relu(long)", "float[L,6] y", "long", "whose size depends on the data behind Range 'steps'"),
        (f"{LENGTH} y = Relu(long)", "float[L,6] y", "y", "whose size depends on the data behind Range 'steps'"),
        (f"{LENGTH} y = Relu(long)", "float[L,6] y", "column", "which inputs and decisions alone make"),
        (
            f"{H} z = NonZero(h) t = Transpose(z) g = GatherND(h, t) y = Neg(g)",
            "float[K] y",
            "g",
            "whose size depends on the data behind NonZero 'z'; name another, such as 'h'",
        ),
        (f"{H} q = SequenceConstruct(h) y = SequenceAt(q, i)", "float[N,6] y", "q", "which holds a sequence"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_reason(text: str, outputs: str, name: str, reason: str) -> None:
    inputs = "float[N,4] x, int64 i" if " i)" in text else "float[N,4] x"
    with pytest.raises(OptionError) as caught:
        check_points(build(text, outputs, inputs), [name])
    assert f"found '{name}', {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # A mean over what is as long as the data say is not.
        (f"{LENGTH} mean = ReduceMean<axes = [0], keepdims = 1>(long) y = Relu(mean)", "mean"),
        # So many of the largest: always five.
        (f"k = Constant<value_ints = [5]>() {H} t, i = TopK(h, k) y = Neg(t)", "t"),
        (f"{H} a = ArgMax<axis = 1, keepdims = 1>(h) y = GatherElements<axis = 1>(h, a)", "y"),
        # Sizes that follow from those of the inputs.
        (f"{H} s = Shape(h) y = Expand(h, s)", "y"),
    ],
)
def test_a_size_that_follows_from_the_inputs_will_do(text: str, name: str) -> None:
    check_points(build(text, "float[A,B] y"), [name])


def test_tensors_inside_bodies_and_functions_are_told_apart_from_those_that_are_not_there() -> None:
    body = build(
        f"""{H} y = If(c) <
        then_branch = a () => (float[N,6] p) {{ inner = Neg(h) p = Abs(inner) }},
        else_branch = b () => (float[N,6] q) {{ q = Abs(h) }}>""",
        inputs="float[N,4] x, bool c",
    )
    with pytest.raises(OptionError, match="found 'inner', which is inside a body of If ''"):
        check_points(body, ["inner"])
    called = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x) => (float[N,4] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 17]> twice (a) => (b) { once = Neg(a) b = Neg(once) }""")
    with pytest.raises(OptionError, match="found 'once', which is inside the function 'twice'"):
        check_points(called, ["once"])
