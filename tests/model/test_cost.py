from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.model import Cost, load_model, measure_cost, node_macs

SHARED = Path(__file__).parents[3] / "shared" / "data"


def build(text: str, opsets: str = '"": 17', ir_version: int = 8, **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{opsets}]> {text}")
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


def test_macs_of_each_operator() -> None:
    model = build(
        """g (float[N, 8, H, W] x, float[N, 5] a) => (float[N, a0, a1, a2] t, float[N, b0] g, float[N, c0] m) {
            c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, wc, bc)
            d = Conv<group = 4>(c, wd)
            t = ConvTranspose<strides = [2, 2]>(d, wt)
            g = Gemm<transB = 1>(a, wg, bg)
            m = MatMul(g, wm)
        }""",
        wc=(12, 8, 3, 3), bc=(12,), wd=(20, 3, 1, 1), wt=(20, 6, 2, 2), wg=(7, 5), bg=(7,), wm=(7, 11),
    )  # fmt: skip
    macs = node_macs(model, {"x": (2, 8, 8, 6), "a": (2, 5)})
    assert macs == {
        "c": 2 * 12 * (4 * 3) * 8 * 9,
        "d": 2 * 20 * (4 * 3) * 3,
        "t": 2 * 20 * (4 * 3) * 6 * 4,
        "g": 2 * 7 * 5,
        "m": 2 * 11 * 7,
    }


def test_transposed_operands() -> None:
    text = """g (float[5, 2] a, float[3, 4, 5, 2] b) => (float[p, q] y, float[p, q, r, s] z) {
        y = Gemm<transA = 1>(a, w)
        z = com.microsoft.FusedMatMul<transA = 1>(b, w)
    }"""
    macs = node_macs(build(text, '"": 17, "com.microsoft": 1', w=(5, 7)), {})
    assert macs == {"y": 2 * 7 * 5, "z": 3 * 4 * 2 * 7 * 5}


def test_a_batched_matmul_counts_every_batch() -> None:
    model = build("g (float[B, 4, 6] a, float[B, 6, 3] b) => (float[B, 4, 3] y) { y = MatMul(a, b) }")
    assert node_macs(model, {"a": (10, 4, 6), "b": (10, 6, 3)}) == {"y": 10 * 4 * 3 * 6}


def test_dynamic_dims_count_as_one() -> None:
    model = build("g (float[N, 6] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=(6, 3))
    assert measure_cost(model) == Cost(18, 18, model.ByteSize())
    assert measure_cost(model, {"x": (4, 6)}).macs == 72


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = build("g (float[N, 6] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=(6, 3))
    with pytest.raises(OptionError, match="'x' has shape N,6 in the model, found 4,5"):
        measure_cost(model, {"x": (4, 5)})


def test_old_shapes_in_the_model_do_not_count() -> None:
    model = build("g (float[N, 6] x) => (float[N, 99] y) { h = Relu(x)  y = MatMul(h, w) }", w=(6, 3))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, [77, 6]))
    assert node_macs(model, {"x": (2, 6)}) == {"y": 2 * 3 * 6}


DYNAMIC = """g (float[N, 6] x) => (float[a, b] y) {
    f = Compress(x, keep)
    r = Reshape(f, target)
    y = MatMul(r, w)
}"""


@pytest.mark.parametrize("width", [3, 3000])
def test_shapes_that_inference_cannot_find_come_from_a_run(width: int) -> None:
    model = build(DYNAMIC, w=(2, width))
    keep = numpy_helper.from_array(np.array([True, False, True, True, True]), "keep")
    model.graph.initializer.extend([keep, numpy_helper.from_array(np.array([-1, 2]), "target")])
    assert node_macs(model, {"x": (3, 6)}) == {"y": 2 * width * 2}


def test_a_run_that_needs_its_weights_gets_them() -> None:
    text = """g (float[1, 6] x) => (float[a, b] y) {
        target = com.microsoft.Gelu(x)
        k = Cast<to = 7>(table)
        row = Gather(k, zero)
        r = Reshape(x, row)
        y = MatMul(r, w)
    }"""
    model = build(text, '"": 17, "com.microsoft": 1', w=(3, 5))
    table = np.tile(np.array([2, 3], np.float32), (1000, 1))
    model.graph.initializer.extend(
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(0), "zero")]
    )
    assert node_macs(model) == {"y": 2 * 5 * 3}


def test_a_run_that_fails_is_a_model_error() -> None:
    model = build("g (float[1, 6] x) => (float[a, b] y) { u = com.unknown.Op(x)  y = MatMul(u, w) }",
                  '"": 17, "com.unknown": 1', w=(3, 5))  # fmt: skip
    with pytest.raises(
        ModelError,
        match=r"the shape of 'y' must be known to count MACs, a run failed: .*com.unknown.*--input-shapes.*--data",
    ):
        node_macs(model)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_loop_counts_as_often_as_it_runs_and_of_branches_the_dearer(steps: int) -> None:
    model = build("""g (bool c, int64 n, float[B, 4] x) => (float[B, k] y, float[B, 4] z) {
        y = If(c) <
            then_branch = t () => (float[B, k] a) { a = MatMul(x, narrow) },
            else_branch = e () => (float[B, k] b) { b = MatMul(x, wide) }>
        z = Loop(n, c, x) <
            body = l (int64 i, bool go, float[B, 4] s) => (bool on, float[B, 4] out) {
                on = Identity(go)
                m = MatMul(x, square)
                out = Add(s, m)
            }>
    }""", narrow=(4, 2), wide=(4, 6), square=(4, 4))  # fmt: skip
    values = {"n": np.array(steps), "c": np.array(True)} if steps > 1 else {}
    macs = node_macs(model, {"x": (3, 4), "c": (), "n": ()}, values)
    assert macs == {"y": 3 * 4 * 6, "z": steps * 3 * 4 * 4}


def test_branches_within_a_loop_count_as_often_as_each_was_taken() -> None:
    model = build("""g (int64 n, float[B, 4] x) => (float[B, 4] z) <int64 one = {1}, bool yes = {1}> {
        z = Loop(n, yes, x) <
            body = l (int64 i, bool go, float[B, 4] s) => (bool on, float[B, 4] out) {
                on = Identity(go)
                late = Greater(i, one)
                out = If(late) <
                    then_branch = t () => (float[B, 4] a) { a = MatMul(s, w) },
                    else_branch = e () => (float[B, 4] b) { h = MatMul(s, u)  b = MatMul(h, v) }>
            }>
    }""", w=(4, 4), u=(4, 8), v=(8, 4))  # fmt: skip
    macs = node_macs(model, {"x": (3, 4)}, {"n": np.array(5)})
    assert macs == {"z": 3 * (3 * 4 * 4) + 2 * (2 * 3 * 4 * 8)}


def test_sizes_within_a_branch_come_from_a_run() -> None:
    model = build("""g (float[B, 6] x, bool c) => (float[p, q] y) <int64[2] target = {-1, 2}> {
        y = If(c) <
            then_branch = t () => (float[p, q] a) { r = Reshape(x, target)  s = Compress(r, keep)
                                                    k = Reshape(s, target)  a = MatMul(k, w) },
            else_branch = e () => (float[p, q] b) { b = Identity(x) }>
    }""", w=(2, 7))  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([True, True]), "keep"))
    values = {"x": np.ones((3, 6), np.float32), "c": np.array(True)}
    assert node_macs(model, {"x": (3, 6), "c": ()}, values) == {"y": 1 * 2 * 7}


def test_a_product_of_unknown_shape_in_a_body_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = build("""g (bool c, float[B, 4] x) => (float[p, q] y) {
        y = If(c) <
            then_branch = t () => (float[p, q] a) { f = Compress(x, keep)  r = Reshape(f, target)  a = MatMul(r, w) },
            else_branch = e () => (float[p, q] b) { b = MatMul(x, v) }>
    }""", w=(3, 6), v=(4, 6))  # fmt: skip
    keep = numpy_helper.from_array(np.array([True, False, True]), "keep")
    # Two entries are no rows of three: the branch fails where it is not taken.
    model.graph.initializer.extend([keep, numpy_helper.from_array(np.array([-1, 3]), "target")])
    with caplog.at_level(logging.WARNING):
        assert node_macs(model) == {"y": 24}
    assert "MACs of MatMul 'a' in a body do not count" in caplog.text


def test_a_weight_that_both_branches_hold_counts_once() -> None:
    model = build("""g (bool c, float[B, 4] x) => (float[B, 4] y) {
        y = If(c) <
            then_branch = t () => (float[B, 4] a) <float[4] k = {1, 2, 3, 4}, float[2] own = {1, 2}> { a = Mul(x, k) },
            else_branch = e () => (float[B, 4] b) <float[4] k = {1, 2, 3, 4}, float[2] own = {3, 4}> { b = Add(x, k) }>
    }""")
    assert measure_cost(model).parameters == 4 + 2 + 2


def test_local_functions_are_counted() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2, 4] x) => (float[2, 4] y) { y = local.twice(x, x) }
        <domain: "local", opset_import: ["": 17]>
        twice (a, b) => (r) { t = Transpose<perm = [1, 0]>(b)  m = MatMul(a, t)  r = MatMul(m, a) }
    """)
    assert measure_cost(model).macs == 2 * 2 * 4 + 2 * 4 * 2


def test_parameters_are_the_elements_of_float_weights() -> None:
    model = build(
        """g (float[1, 4] x) => (float[1, 3] y) {
            k = Constant<value_floats = [1.0, 2.0, 3.0]>()
            s = Constant<value_float = 1.0>()
            i = Constant<value_ints = [1, 2]>()
            h = MatMul(x, w)
            y = Add(h, k)
        }""",
        w=(4, 3),
        scalar=(),
    )
    half = numpy_helper.from_array(np.ones((2, 5), np.float16), "half")
    model.graph.initializer.extend([half, numpy_helper.from_array(np.ones(100, np.int8), "integers")])
    assert measure_cost(model).parameters == 3 + 12 + 10


@pytest.mark.skipif(not SHARED.exists(), reason=f"no real models: {SHARED} is absent")
@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("cifar10/resnet56_cifar10_ts17.onnx", 125_485_696, 850_986),
        ("cifar10/resnet56_cifar10_dynamo18.onnx", 125_485_696, 850_986),
        ("imagenet/efficientnet_lite0_ts17.onnx", 385_187_552, 4_631_000),
    ],
)
def test_real_networks_cost_what_is_published(name: str, macs: int, parameters: int) -> None:
    cost = measure_cost(load_model(SHARED / name))
    assert (cost.macs, cost.parameters) == (macs, parameters)
