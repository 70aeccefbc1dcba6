"""Folding BatchNormalization: every linear operator and layout, and every reason to leave a pair alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.passes import FoldBatchNorm, overridable_initializers

Build = Callable[..., onnx.ModelProto]
Apply = Callable[..., onnx.ModelProto]
Same = Callable[..., None]


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def norm(rng: np.random.Generator, channels: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Parameters as a trained network has them, some channels switched off or with a negative scale."""
    scale = rng.normal(1, 0.5, channels)
    scale[0] = 0
    return {
        "scale": scale.astype(dtype),
        "shift": rng.normal(0, 0.5, channels).astype(dtype),
        "mean": rng.normal(0, 0.5, channels).astype(dtype),
        "var": rng.uniform(0.1, 2, channels).astype(dtype),
    }


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


BN = "BatchNormalization <epsilon = 0.001> (c, scale, shift, mean, var)"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("x", "y", "shape", "groups"),
    [
        ("N,4,9", "N,6,M", (6, 4, 3), 1),
        ("N,4,9,8", "N,6,M,K", (6, 4, 3, 3), 1),
        ("N,4,9,8", "N,6,M,K", (6, 2, 3, 3), 2),
        ("N,4,9,8", "N,8,M,K", (8, 1, 3, 3), 4),
        ("N,4,5,4,3", "N,6,M,K,L", (6, 4, 2, 2, 2), 1),
    ],
)
def test_conv(rng, build: Build, apply: Apply, same_outputs: Same, x, y, shape, groups, bias) -> None:
    parameters = {"w": floats(rng, *shape)} | ({"b": floats(rng, shape[0])} if bias else {})
    text = f"""g (float[{x}] x) => (float[{y}] y) {{
        c = Conv <group = {groups}> ({", ".join(["x", *parameters])})
        y = {BN}
    }}"""
    before = build(text, **parameters, **norm(rng, shape[0]))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Conv": 1}
    assert {tensor.name for tensor in after.graph.initializer} == ({"w", "b"} if bias else {"w", "w_bias"})
    same_outputs(before, after)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("x", "y", "shape", "groups"),
    [
        ("N,4,9", "N,6,M", (4, 6, 3), 1),
        ("N,4,5,6", "N,6,M,K", (4, 3, 3, 3), 2),
        ("N,4,5,6", "N,12,M,K", (4, 3, 2, 2), 4),
        ("N,2,3,3,3", "N,5,M,K,L", (2, 5, 2, 2, 2), 1),
    ],
)
def test_conv_transpose(rng, build: Build, apply: Apply, same_outputs: Same, x, y, shape, groups, bias) -> None:
    channels = shape[1] * groups
    parameters = {"w": floats(rng, *shape)} | ({"b": floats(rng, channels)} if bias else {})
    text = f"""g (float[{x}] x) => (float[{y}] y) {{
        c = ConvTranspose <group = {groups}> ({", ".join(["x", *parameters])})
        y = {BN}
    }}"""
    before = build(text, **parameters, **norm(rng, channels))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"ConvTranspose": 1}
    same_outputs(before, after)


@pytest.mark.parametrize("bias_shape", [None, (), (1,), (6,), (1, 6), (2, 6), (2, 1)])
@pytest.mark.parametrize(("transposed", "alpha", "beta"), [(0, 1.0, 1.0), (1, 0.5, 2.0), (1, 1.0, 0.0)])
def test_gemm(rng, build: Build, apply: Apply, same_outputs: Same, transposed, alpha, beta, bias_shape) -> None:
    parameters = {"w": floats(rng, *((6, 4) if transposed else (4, 6)))}
    if bias_shape is not None:
        parameters["b"] = floats(rng, *bias_shape)
    text = f"""g (float[2,4] x) => (float[2,6] y) {{
        c = Gemm <transB = {transposed}, alpha = {alpha}, beta = {beta}> ({", ".join(["x", *parameters])})
        y = {BN}
    }}"""
    before = build(text, **parameters, **norm(rng, 6))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Gemm": 1}
    same_outputs(before, after)


def test_omitted_bias_written_as_empty_name(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = f"g (float[N,4,5,5] x) => (float[N,6,3,3] y) {{ c = Conv (x, w) y = {BN} }}"
    before = build(text, w=floats(rng, 6, 4, 3, 3), **norm(rng, 6))
    before.graph.node[0].input.append("")
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Conv": 1}
    same_outputs(before, after)


def test_half_precision_is_computed_in_double(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = """g (float16[N,4,5,5] x) => (float16[N,6,3,3] y) {
        c = Conv (x, w, b)
        y = BatchNormalization (c, scale, shift, mean, var)
    }"""
    w, b = floats(rng, 6, 4, 3, 3).astype(np.float16), floats(rng, 6).astype(np.float16)
    parameters = norm(rng, 6, np.float16)
    before = build(text, w=w, b=b, **parameters)
    after = apply(before, FoldBatchNorm())
    scale, shift, mean, var = (parameters[name].astype(np.float64) for name in ("scale", "shift", "mean", "var"))
    factor = scale / np.sqrt(var + 1e-5)
    np.testing.assert_array_equal(weight(after, "w"), (w * factor[:, None, None, None]).astype(np.float16))
    np.testing.assert_array_equal(weight(after, "b"), (factor * (b - mean) + shift).astype(np.float16))
    same_outputs(before, after, rtol=4e-3)


def test_half_precision_overflow_is_left(rng, build: Build, apply: Apply) -> None:
    text = (
        "g (float16[N,4] x) => (float16[N,6] y) { c = Gemm (x, w) y = BatchNormalization (c, scale, shift, mean, var) }"
    )
    parameters = norm(rng, 6, np.float16) | {"scale": np.full(6, 6e4, np.float16)}
    before = build(text, w=np.full((4, 6), 100, np.float16), **parameters)
    assert apply(before, FoldBatchNorm()) == before


def test_two_in_a_row_both_fold(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = f"""g (float[N,4,5,5] x) => (float[N,6,3,3] y) {{
        c0 = Conv (x, w)
        c = BatchNormalization (c0, scale, shift, mean, var)
        z = {BN}
        y = Relu (z)
    }}"""
    before = build(text, w=floats(rng, 6, 4, 3, 3), **norm(rng, 6))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Conv": 1, "Relu": 1}
    same_outputs(before, after)


def test_the_conv_keeps_its_own_identity(rng, build: Build, apply: Apply) -> None:
    text = f"g (float[N,4,5,5] x) => (float[N,6,3,3] y) {{ [conv] c = Conv (x, w) [bn] z = {BN} y = Relu (z) }}"
    before = build(text, w=floats(rng, 6, 4, 3, 3), **norm(rng, 6))
    before.graph.node[0].doc_string = "of the convolution"
    conv = apply(before, FoldBatchNorm()).graph.node[0]
    assert (conv.name, conv.doc_string, list(conv.output)) == ("conv", "of the convolution", ["c"])


def test_shared_bias_is_cloned(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = f"""g (float[N,4,5,5] x) => (float[N,6,3,3] y, float[N,6,3,3] z) {{
        c = Conv (x, w, b)
        y = {BN}
        z = Conv (x, v, b)
    }}"""
    b = floats(rng, 6)
    before = build(text, w=floats(rng, 6, 4, 3, 3), v=floats(rng, 6, 4, 3, 3), b=b, **norm(rng, 6))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Conv": 2}
    np.testing.assert_array_equal(weight(after, "b"), b)
    assert after.graph.node[0].input[2] == "b_folded"
    same_outputs(before, after)


def test_bias_shared_with_the_norm_itself(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = """g (float[N,4,5,5] x) => (float[N,6,3,3] y) {
        c = Conv (x, w, shift)
        y = BatchNormalization (c, scale, shift, shift, var)
    }"""
    before = build(text, w=floats(rng, 6, 4, 3, 3), **norm(rng, 6))
    del before.graph.initializer[3]  # mean
    after = apply(before, FoldBatchNorm())
    assert operators(after) == {"Conv": 1}
    same_outputs(before, after)


def test_names_already_taken_are_avoided(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = f"g (float[N,4] w_bias) => (float[N,6] y) {{ c = Gemm (w_bias, w) y = {BN} }}"
    before = build(text, w=floats(rng, 4, 6), **norm(rng, 6))
    after = apply(before, FoldBatchNorm())
    assert after.graph.node[0].input[2] == "w_bias_1"
    same_outputs(before, after)


X, Y = "(float[N,4] x)", "float[N,6] y"
LEFT = {
    "several consumers": f"{X} => ({Y}, float[N,6] z) {{ c = Gemm (x, w) y = {BN} z = Relu (c) }}",
    "another node between": f"{X} => ({Y}) {{ d = Gemm (x, w) c = Add (d, d) y = {BN} }}",
    "conv output is a graph output": f"{X} => ({Y}, float[N,6] c) {{ c = Gemm (x, w) y = {BN} }}",
    "weight shared": f"{X} => ({Y}, float[N,6] z) {{ c = Gemm (x, w) y = {BN} z = MatMul (x, w) }}",
    "weight is a graph output": f"{X} => ({Y}, float[4,6] w) {{ c = Gemm (x, w) y = {BN} }}",
    "weight computed": f"{X} => ({Y}) {{ v = Identity (w) c = Gemm (x, v) y = {BN} }}",
    "bias computed": f"{X} => ({Y}) {{ v = Identity (shift) c = Gemm (x, w, v) y = {BN} }}",
    "statistics computed": f"{X} => ({Y}) {{ c = Gemm (x, w) v = Abs (var) y = {BN.replace('var', 'v')} }}",
    "no linear node before": f"(float[N,6] x) => ({Y}) {{ c = Relu (x) y = {BN} }}",
    "training mode": f"""{X} => ({Y}) {{
        c = Gemm (x, w)
        y, m, v = BatchNormalization <training_mode = 1> (c, scale, shift, mean, var)
    }}""",
    "conv output used in a body": f"""(float[N,4] x, bool k) => ({Y}, float[N,6] z) {{
        c = Gemm (x, w)
        y = {BN}
        z = If (k) <
            then_branch = t () => (float[N,6] p) {{ p = Relu (c) }},
            else_branch = e () => (float[N,6] q) {{ q = Neg (y) }}
        >
    }}""",
}


@pytest.mark.parametrize("reason", LEFT)
def test_left(rng, build: Build, apply: Apply, reason: str) -> None:
    before = build(f"g {LEFT[reason]}", w=floats(rng, 4, 6), **norm(rng, 6))
    after = apply(before, FoldBatchNorm())
    assert operators(after) == operators(before)
    assert operators(after)["BatchNormalization"] == 1
    np.testing.assert_array_equal(weight(after, "w"), weight(before, "w"))


@pytest.mark.parametrize(("outputs", "left"), [("y", 0), ("y, m, v, s, t", 1)])
def test_training_is_told_by_the_outputs_before_opset_14(rng, build: Build, apply: Apply, outputs, left) -> None:
    text = f"""g (float[N,4] x) => (float[N,6] y) {{
        c = Gemm (x, w, shift)
        {outputs} = BatchNormalization (c, scale, shift, mean, var)
    }}"""
    before = build(text, opset=9, w=floats(rng, 4, 6), **norm(rng, 6))
    assert operators(apply(before, FoldBatchNorm()))["BatchNormalization"] == left


@pytest.mark.parametrize("name", ["w", "b", "scale", "mean"])
def test_what_callers_may_replace_is_left(rng, build: Build, apply: Apply, name: str) -> None:
    text = f"g (float[N,4] x) => (float[N,6] y) {{ c = Gemm (x, w, b) y = {BN} }}"
    before = build(text, w=floats(rng, 4, 6), b=floats(rng, 6), **norm(rng, 6))
    shape = weight(before, name).shape
    before.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    assert overridable_initializers(before) == {name}
    after = apply(before, FoldBatchNorm(overridable_initializers(before)))
    assert operators(after) == {"Gemm": 1, "BatchNormalization": 1}


def test_initializers_listed_as_inputs_are_constants_before_ir_4(rng, build: Build) -> None:
    text = f"g (float[N,4] x, float[4,6] w) => (float[N,6] y) {{ c = Gemm (x, w) y = {BN} }}"
    model = build(text, w=floats(rng, 4, 6), **norm(rng, 6))
    model.ir_version = 3
    assert overridable_initializers(model) == frozenset()
