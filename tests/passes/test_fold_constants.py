"""Folding constants: chains as exporters write them, semantics equal to ONNX Runtime's, and what must stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.passes import FoldConstants, fold_constants, overridable_initializers

Build = Callable[..., onnx.ModelProto]
Apply = Callable[..., onnx.ModelProto]
Same = Callable[..., None]


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator is used; a Constant node is only another way to write an initializer."""
    return Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


PAD_CHAIN = """g (float[N,3,8,8] x) => (float[N,3,10,11] y) {
    four = Constant <value = int64[1] {4}> ()
    pads = Constant <value = int64[4] {1, 2, 1, 0}> ()
    zeros = ConstantOfShape <value = int64[1] {0}> (four)
    all = Concat <axis = 0> (pads, zeros)
    two = Constant <value = int64[2] {-1, 2}> ()
    pairs = Reshape (all, two)
    axis = Constant <value = int64[1] {0}> ()
    start = Constant <value = int64[1] {-1}> ()
    end = Constant <value = int64[1] {-9223372036854775807}> ()
    step = Constant <value = int64[1] {-1}> ()
    reversed = Slice (pairs, start, end, axis, step)
    turned = Transpose <perm = [1, 0]> (reversed)
    flat = Constant <value = int64[1] {-1}> ()
    line = Reshape (turned, flat)
    cast = Cast <to = 7> (line)
    y = Pad <mode = "constant"> (x, cast)
}"""


def test_the_padding_chain_of_torchscript(build: Build, apply: Apply, same_outputs: Same) -> None:
    before = build(PAD_CHAIN)
    after = apply(before, FoldConstants())
    assert operators(after) == {"Pad": 1}
    np.testing.assert_array_equal(constants(after)["cast"], [0, 0, 1, 1, 0, 0, 0, 2])
    same_outputs(before, after)


@pytest.mark.parametrize(
    ("name", "pads", "dims"),
    [
        ("imagenet/efficientnet_lite0_ts17.onnx", 17, {"N": 1}),
        ("cifar10/resnet32_cifar10_ts17.onnx", 2, {"N": 2}),
        ("cifar10/resnet56_cifar10_ts17.onnx", 2, {"N": 2}),
    ],
)
def test_real_exports_have_constant_pads(real_model, apply: Apply, same_outputs: Same, name, pads, dims) -> None:
    before = real_model(name)
    after = apply(before, FoldConstants())
    known = constants(after)
    found = [node.input[1] in known for node in after.graph.node if node.op_type == "Pad"]
    assert found == [True] * pads
    assert not {"ConstantOfShape", "Cast", "Transpose"} & set(operators(after))
    same_outputs(before, after, **dims)


# a and b are int64[4], half is a float, the others integers: `i` with the digits it holds, `m` where they are negative.
SEMANTICS = {
    "division truncates towards zero": "c = Div (a, b)",
    "modulo": "c = Mod (a, b)",
    "modulo of C": "c = Mod <fmod = 1> (a, b)",
    "cast truncates": "f = Cast <to = 1> (a) g = Mul (f, half) c = Cast <to = 7> (g)",
    "negative indices": "j = Sub (i1230, i2) c = Gather (a, j)",
    "range": "s = Squeeze (i7) e = Squeeze (m1) d = Squeeze (m2) c = Range (s, e, d)",
    "where": "z = Less (a, b) c = Where (z, a, b)",
    "split": "p, q = Split (a) c = Concat <axis = 0> (q, p)",
    "reduce": "c = ReduceProd <keepdims = 0> (a)",
    "power": "c = Pow (a, i2)",
    "expand": "u = Unsqueeze (a, i0) e = Expand (u, i34) c = ReduceSum <keepdims = 0> (e, i0)",
    "shape of a constant": "c = Shape (a)",
    "slice backwards": "l = Tile (a, i2) c = Slice (l, i5, i1, i0, m1)",
    "one hot": "d = Squeeze (i4) o = OneHot (b, d, i01) c = ReduceSum <keepdims = 0> (o, i0)",
    "cumulative sum": "z = Squeeze (i0) c = CumSum <reverse = 1> (a, z)",
    "floats": "f = Cast <to = 1> (b) q = Sqrt (f) r = Reciprocal (q) e = Exp (r) u = Ceil (e) c = Cast <to = 7> (u)",
}


@pytest.mark.parametrize("case", SEMANTICS)
def test_values_are_those_of_the_runtime(build: Build, apply: Apply, same_outputs: Same, case: str) -> None:
    text = f"g (int64[4] x) => (int64[4] y) {{ {SEMANTICS[case]} y = Add (c, x) }}"
    integers = {
        f"i{digits}": np.array([int(one) for one in digits])
        for digits in ["0", "1", "2", "4", "5", "7", "01", "34", "1230"]
    }
    integers |= {"m1": np.array([-1]), "m2": np.array([-2])}
    before = build(text, a=np.array([-7, 7, -5, 2]), b=np.array([2, 3, 4, 3]), half=np.float32(0.5), **integers)
    after = apply(before, FoldConstants())
    assert operators(after) == {"Add": 1}
    same_outputs(before, after)


def test_old_versions_of_operators_are_understood(build: Build, apply: Apply, same_outputs: Same) -> None:
    text = """g (float[N,2,2] x) => (float[N,1,1,2] y) {
        cut = Slice <starts = [1], ends = [3], axes = [0]> (a)
        u = Unsqueeze <axes = [0, 1, 2]> (cut)
        s = Squeeze <axes = [0]> (u)
        part = ReduceMean <axes = [1]> (x)
        y0 = Unsqueeze <axes = [1]> (part)
        y = Add (y0, s)
    }"""
    before = build(text, opset=9, a=np.arange(4, dtype=np.float32))
    after = apply(before, FoldConstants())
    assert operators(after) == {"ReduceMean": 1, "Unsqueeze": 1, "Add": 1}
    same_outputs(before, after)


WEIGHT = "g (float[N,4] x) => (float[N,6] y)"
LEFT = {
    "tied weight": f"{WEIGHT} {{ i = Identity (w) t = Transpose (i) y = MatMul (x, t) }}",
    "weight in half precision": f"{WEIGHT} {{ t = Transpose (h) c = Cast <to = 1> (t) y = MatMul (x, c) }}",
    "quantised weight": f"{WEIGHT} {{ d = DequantizeLinear (q, s) y = MatMul (x, d) }}",
    "random numbers": f"{WEIGHT} {{ r = RandomNormalLike (w) t = Transpose (r) y = MatMul (x, t) }}",
    "shape of an input": "g (float[2,4] x) => (float[8] y) { t = Shape (x) p = ReduceProd (t) y = Reshape (x, p) }",
    "graph output": "g (float[2,4] x) => (float[2,4] y, float[6,4] z) { y = Relu (x) z = Neg (w) }",
    "other domain": f"{WEIGHT} {{ g = com.microsoft.Gelu (w) t = Transpose (g) y = MatMul (x, t) }}",
    "branches": """g (float[N,4] x) => (float[N,4] y) {
        y = If (k) <
            then_branch = a () => (float[N,4] p) { p = Relu (x) },
            else_branch = b () => (float[N,4] r) { r = Neg (x) }
        >
    }""",
}


@pytest.mark.parametrize("reason", LEFT)
def test_left(rng, build: Build, apply: Apply, reason: str) -> None:
    arrays = {
        "w": rng.normal(size=(6, 4)).astype(np.float32),
        "h": rng.normal(size=(6, 4)).astype(np.float16),
        "q": rng.integers(-9, 9, size=(4, 6)).astype(np.int8),
        "s": np.float32(0.5),
        "k": np.array(True),
    }
    before = build(LEFT[reason], domains=', "com.microsoft" : 1', **arrays)
    assert operators(apply(before, FoldConstants())) == operators(before)


def test_a_weight_chain_is_folded_into_what_is_computed_from_it(
    rng, build: Build, apply: Apply, same_outputs: Same
) -> None:
    text = "g (float[N,4] x) => (float[N,6] y) { t = Transpose (w) c = Neg (t) y = MatMul (x, c) }"
    w = rng.normal(size=(6, 4)).astype(np.float32)
    before = build(text, w=w)
    after = apply(before, FoldConstants())
    np.testing.assert_array_equal(constants(after)["c"], -w.T)
    same_outputs(before, after)


def test_shared_vectors_are_folded_through_identity(rng, build: Build, apply: Apply, same_outputs: Same) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { c = Identity (b) z = Add (x, b) y = Mul (z, c) }"
    before = build(text, b=rng.normal(size=4).astype(np.float32))
    after = apply(before, FoldConstants())
    assert operators(after) == {"Add": 1, "Mul": 1}
    same_outputs(before, after)


def test_what_callers_may_replace_is_not_constant(build: Build, apply: Apply) -> None:
    text = "g (float[N,4] x, float[4] b) => (float[N,4] y) { c = Neg (b) y = Add (x, c) }"
    before = build(text, b=np.ones(4, np.float32))
    assert operators(apply(before, FoldConstants(overridable_initializers(before)))) == {"Neg": 1, "Add": 1}


EXPAND = "g (float[1] x) => (float[64] y) { s = Constant <value_ints = [64]> () c = Expand (a, s) y = Add (x, c) }"
HALVE = "g (float[1] x) => (float[64] y) { r = Neg (a) c, d = Split (r) y = Add (x, c) }"


@pytest.mark.parametrize(
    ("text", "elements", "limit", "left"),
    [(EXPAND, 1, 255, {"Expand": 1, "Add": 1}), (EXPAND, 1, 256, {"Add": 1}), (HALVE, 128, 8, {"Add": 1})],
)
def test_large_results_are_left_unless_made_of_as_much(build: Build, apply: Apply, text, elements, limit, left) -> None:
    before = build(text, a=np.ones(elements, np.float32))
    assert operators(apply(before, FoldConstants(limit=limit))) == left


@pytest.mark.parametrize(("gain", "left"), [(503, {"Expand": 1, "Add": 2}), (504, {"Add": 2})])
def test_all_results_together_grow_by_no_more_than_is_allowed(build: Build, apply: Apply, gain, left) -> None:
    """Each Expand makes 264 bytes of 12: its value and its shape."""
    text = """g (float[1] x) => (float[66] y) {
        c = Expand (a, s) d = Expand (b, s) e = Add (x, c) y = Add (e, d)
    }"""
    before = build(text, a=np.ones(1, np.float32), b=np.zeros(1, np.float32), s=np.array([66]))
    assert operators(apply(before, FoldConstants(gain=gain))) == left


def test_operators_whose_time_is_not_bounded_are_left(build: Build, apply: Apply) -> None:
    text = "g (int64[1] x) => (int64[N, 3] y) { n = NonMaxSuppression (b, s, m) y = Add (x, n) }"
    boxes, scores = np.zeros((1, 3, 4), np.float32), np.ones((1, 1, 3), np.float32)
    before = build(text, b=boxes, s=scores, m=np.array([3]))
    assert operators(apply(before, FoldConstants()))["NonMaxSuppression"] == 1


def test_a_huge_result_is_never_computed(build: Build, apply: Apply) -> None:
    text = """g (float[1] x) => (float[N] y) {
        s = Constant <value_ints = [1000000000000]> ()
        c = Expand (a, s)
        y = Add (x, c)
    }"""
    assert operators(apply(build(text, a=np.ones(1, np.float32)), FoldConstants())) == {"Expand": 1, "Add": 1}


def test_bfloat16_is_folded_too(build: Build, apply: Apply) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { n = Neg (b) c = Cast <to = 1> (n) y = Add (x, c) }"
    values = np.array([1, -2.5, 3, 1 / 3], onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    folded = apply(build(text, b=values), FoldConstants())
    assert operators(folded) == {"Add": 1}
    (constant,) = folded.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(constant), -values.astype(np.float32))


def test_an_operator_that_fails_stays(build: Build, apply: Apply) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { i = Constant <value_ints = [9]> () c = Gather (b, i) y = Add (x, c) }"
    before = build(text, b=np.ones(4, np.float32))
    assert operators(apply(before, FoldConstants())) == {"Gather": 1, "Add": 1}


@pytest.mark.parametrize("wrong", [np.ones(4), np.ones((4, 1), np.float32), [1.0] * 4])
def test_a_value_unlike_what_onnx_infers_is_not_taken(
    build: Build, apply: Apply, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    before = build("g (float[N,4] x) => (float[N,4] y) { c = Neg (b) y = Add (x, c) }", b=np.ones(4, np.float32))
    monkeypatch.setattr(fold_constants.ReferenceEvaluator, "run", lambda self, names, feeds: [wrong])
    assert operators(apply(before, FoldConstants())) == {"Neg": 1, "Add": 1}


def test_unsorted_nodes_are_refused(build: Build) -> None:
    graph = to_graph(build("g (float[4] x) => (float[4] y) { c = Neg (x) y = Add (x, c) }"))
    graph.nodes.reverse()
    result = FoldConstants()(graph)
    assert not result.modified
    assert "topological order" in result.refusals[0]
