"""Targets of Reshape that a graph computes keep the form that ONNX Runtime's fusions know."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import references

# Heads split and put together again, sizes read from the input as PyTorch writes it; two Reshapes share a target.
HEADS = """g (float[N,S,8] x) => (float[N,S,8] y) {
    sizes = Shape(x)
    n = Gather(sizes, at0)
    s = Gather(sizes, at1)
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    heads = Concat<axis = 0>(n, s, four, minus)
    qh = Reshape(q, heads)
    kh = Reshape(k, heads)
    sum = Mul(qh, kh)
    flat = Concat<axis = 0>(n, s, wide)
    f = Reshape(sum, flat)
    y = MatMul(f, wo)
}"""

# Sizes that come from elsewhere than a Concat: two at once, as a Slice of a Shape, behind arithmetic.
ARITHMETIC = """g (float[N,S,8] x) => (float[N,S,8] y) {
    h = MatMul(x, wq)
    sizes = Shape(x)
    doubled = Mul(sizes, twos)
    r = Reshape(h, doubled)
    t = Relu(r)
    y = MatMul(t, wo)
}"""

RUN = {"x": (2, 3, 8)}


@pytest.fixture
def heads(build, rng) -> onnx.ModelProto:
    return build(
        HEADS, at0=np.array([0]), at1=np.array([1]), four=np.array([4]), minus=np.array([-1]), wide=np.array([16]),
        wq=rng.normal(size=(8, 16)).astype(np.float32), wk=rng.normal(size=(8, 16)).astype(np.float32),
        wo=rng.normal(size=(16, 8)).astype(np.float32),
    )  # fmt: skip


def shrunk_of(model: onnx.ModelProto, plan_at_random, fraction: float = 0.5) -> onnx.ModelProto:
    analysis = analyse(model, RUN)
    return references(analysis, plan_at_random(analysis, fraction))[0]


def test_a_size_is_rewritten_where_the_vector_is_put_together(heads, plan_at_random, mask_oracle):
    mask_oracle(heads, RUN)
    shrunk = shrunk_of(heads, plan_at_random)
    assert Counter(node.op_type for node in shrunk.graph.node) == Counter(node.op_type for node in heads.graph.node)
    made = {node.output[0]: node for node in shrunk.graph.node}
    targets = [made[node.input[1]] for node in shrunk.graph.node if node.op_type == "Reshape"]
    assert [target.op_type for target in targets] == ["Concat"] * 3
    assert targets[0] is targets[1]
    assert list(targets[0].input[:2]) == ["n", "s"]


def test_sizes_of_the_run_follow(heads, mask_oracle):
    mask_oracle(heads, RUN, run_shapes={"x": (5, 7, 8)})


def test_sizes_that_are_computed_otherwise_are_overwritten(build, rng, plan_at_random, mask_oracle):
    model = build(
        ARITHMETIC, twos=np.array([1, 1, 2]), wq=rng.normal(size=(8, 16)).astype(np.float32),
        wo=rng.normal(size=(16, 8)).astype(np.float32),
    )  # fmt: skip
    mask_oracle(model, RUN, run_shapes={"x": (5, 7, 8)})
    kinds = Counter(node.op_type for node in shrunk_of(model, plan_at_random).graph.node)
    assert kinds["Where"] == 1
    assert kinds["Shape"] == 1


# BLOOM puts batch and heads into one axis: the number of heads stands in a Mul, and its product is handed on.
MERGED = """g (float[N,S,8] x) => (float[N,S,8] y) {
    sizes = Shape(x)
    n = Gather(sizes, zero)
    s = Gather(sizes, one)
    nh = Mul(n, four)
    n1 = Unsqueeze(n, at0)
    s1 = Unsqueeze(s, at0)
    nh1 = Unsqueeze(nh, at0)
    q = MatMul(x, wq)
    heads = Concat<axis = 0>(n1, s1, four1, minus)
    qh = Reshape(q, heads)
    qt = Transpose<perm = [0, 2, 1, 3]>(qh)
    merged = Concat<axis = 0>(nh1, s1, minus)
    m = Reshape(qt, merged)
    r = Relu(m)
    apart = Concat<axis = 0>(n1, four1, s1, minus)
    a = Reshape(r, apart)
    at = Transpose<perm = [0, 2, 1, 3]>(a)
    flat = Concat<axis = 0>(n1, s1, wide)
    f = Reshape(at, flat)
    y = MatMul(f, wo)
}"""


def test_a_number_within_a_product_is_rewritten_there(build, rng, plan_at_random, mask_oracle):
    model = build(
        MERGED, zero=np.array(0), one=np.array(1), four=np.array(4), at0=np.array([0]), four1=np.array([4]),
        minus=np.array([-1]), wide=np.array([16]), wq=rng.normal(size=(8, 16)).astype(np.float32),
        wo=rng.normal(size=(16, 8)).astype(np.float32),
    )  # fmt: skip
    mask_oracle(model, RUN, run_shapes={"x": (5, 7, 8)})
    shrunk = shrunk_of(model, plan_at_random)
    assert Counter(node.op_type for node in shrunk.graph.node) == Counter(node.op_type for node in model.graph.node)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in shrunk.graph.initializer}
    product = next(node for node in shrunk.graph.node if node.op_type == "Mul")
    assert [int(values[name]) for name in product.input if name in values] == [2]
