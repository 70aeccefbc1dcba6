"""Small models of all kinds, and data for them, as starting points for damage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
LARGEST = 120_000
"""Bytes of a file among the cases that is still small."""

HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "own": 1]>'
TEXTS: Mapping[str, str] = {
    "convolutions": """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
        a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1_8x3x3x3, b1_8)
        n = BatchNormalization(a, s_8, o_8, m_8, v_8)
        b = Relu(n)
        c = Conv<pads = [1, 1, 1, 1], group = 8>(b, w2_8x1x3x3)
        d = Add(b, c)
        k = ConvTranspose<strides = [2, 2]>(d, w3_8x6x2x2)
        e = MaxPool<kernel_shape = [2, 2]>(k)
        f = GlobalAveragePool(e)
        h = Flatten(f)
        y = Gemm<transB = 1>(h, w4_4x6, b4_4)
    }""",
    "attention": """g (int64[N, S] ids) => (float[N, S, 16] y)
        <int64[4] heads = {0, 0, 2, 8}, int64[3] flat = {0, 0, 16}> {
        h = Gather(table_32x16, ids)
        n = LayerNormalization(h, s_16, o_16)
        q = MatMul(n, wq_16x16)  k = MatMul(n, wk_16x16)  v = MatMul(n, wv_16x16)
        qh = Reshape(q, heads)  kh = Reshape(k, heads)  vh = Reshape(v, heads)
        qt = Transpose<perm = [0, 2, 1, 3]>(qh)
        kt = Transpose<perm = [0, 2, 3, 1]>(kh)
        vt = Transpose<perm = [0, 2, 1, 3]>(vh)
        scores = MatMul(qt, kt)
        p = Softmax<axis = -1>(scores)
        c = MatMul(p, vt)
        ct = Transpose<perm = [0, 2, 1, 3]>(c)
        cf = Reshape(ct, flat)
        a = MatMul(cf, wo_16x16)
        r = Add(h, a)
        u = MatMul(r, w1_16x32)
        g = Gelu<approximate = "tanh">(u)
        z = MatMul(g, w2_32x16)
        y = Add(r, z)
    }""",
    "recurrent": """g (float[S, N, 6] x) => (float[S, 1, N, 8] y, float[S, 2, N, 5] z) {
        y, h, c = LSTM<hidden_size = 8>(x, w_1x32x6, r_1x32x8, b_1x64)
        f = Squeeze(y, one)
        z, k = GRU<hidden_size = 5, direction = "bidirectional">(f, w2_2x15x8, r2_2x15x5)
    }""",
    "bodies": """g (float[N, 6] x, bool c) => (float[N, 4] y, float[N, 8] z) <int64 n = {3}, bool go = {1}> {
        h = MatMul(x, w1_6x8)
        y = If(c) <
            then_branch = t () => (float[N, 4] a) { r = Relu(h) a = MatMul(r, w2_8x4) },
            else_branch = e () => (float[N, 4] b) { b = MatMul(h, w3_8x4) }>
        z = Loop(n, go, h) <body = step (int64 i, bool g, float[N, 8] s) => (bool k, float[N, 8] t) {
            k = Identity(g) m = MatMul(s, w4_8x8) t = Tanh(m) }>
    }""",
    "sizes": """g (float[N, 3, H, W] x) => (float[N, 2, P, Q] y)
        <int64[1] first = {0}, int64[1] two = {2}, int64[1] end = {4}> {
        a = Conv(x, w1_6x3x1x1)
        s = Shape(a)
        n = Slice(s, first, two)
        p = Slice(s, two, end)
        m = Mul(p, two)
        t = Concat<axis = 0>(n, m)
        r = Resize<mode = "nearest">(a, , , t)
        l, k = Split<axis = 1>(r)
        d = Concat<axis = 1>(k, l)
        y = Conv(d, w2_2x6x1x1)
    }""",
    "detection": """g (float[1, 3, 8, 8] x) => (int64[D, 3] chosen, float[1, 5] best, int64[1, 5] where)
        <int64[3] rows = {1, 16, 4}, int64[3] columns = {1, 1, 16}, int64 most = {4}, float overlap = {0.5},
         int64[1] k = {5}> {
        a = Conv<strides = [2, 2]>(x, w1_8x3x2x2)
        b = Relu(a)
        c = Conv(b, w2_4x8x1x1)
        d = Conv(b, w3_1x8x1x1)
        ct = Transpose<perm = [0, 2, 3, 1]>(c)
        boxes = Reshape(ct, rows)
        scores = Reshape(d, columns)
        chosen = NonMaxSuppression(boxes, scores, most, overlap)
        flat = Flatten(scores)
        best, where = TopK(flat, k)
    }""",
    "quantised": """g (float[N, 6] x) => (float[N, 4] y) <float scale = {0.1}, uint8 zero = {128}> {
        q = QuantizeLinear(x, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        h = MatMul(d, w1_6x8)
        r = Relu(h)
        y = MatMul(r, w2_8x4)
    }""",
    "fused": """g (float[N, S, 16] x) => (float[N, S, 16] y) {
        a = com.microsoft.Attention<num_heads = 2>(x, w_16x48, b_48)
        s, u, v, t = com.microsoft.SkipLayerNormalization<epsilon = 1e-05>(x, a, g_16, o_16)
        h = com.microsoft.FusedMatMul<alpha = 0.5>(s, w1_16x24)
        f = com.microsoft.BiasGelu(h, b1_24)
        y = MatMul(f, w2_24x16)
    }""",
    "functions": """g (float[N, 6] x) => (float[N, 4] y) {
        h = MatMul(x, w1_6x8)
        a = own.act(h)
        c = own.twice(a)
        y = MatMul(c, w2_8x4)
    }
    <domain: "own", opset_import: ["": 17]> act (v) => (w) { s = Sigmoid(v) w = Mul(v, s) }
    <domain: "own", opset_import: ["": 17, "own": 1]> twice (v) => (w) { t = own.act(v) w = own.act(t) }""",
}


def weights(text: str) -> list[str]:
    """Return the names in a text that say a shape, such as w_8x3x3x3, each once."""
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return list(
        dict.fromkeys(word for word in words if "_" in word and word.rpartition("_")[2].replace("x", "").isdigit())
    )


def written(name: str) -> onnx.ModelProto:
    """Return the model of a text, with random weights."""
    rng = np.random.default_rng(0)
    text = TEXTS[name]
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    for weight in weights(text):
        shape = [int(size) for size in weight.rpartition("_")[2].split("x")]
        values = np.abs(rng.standard_normal(shape)) / np.sqrt(shape[-1])
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
    if name == "recurrent":
        model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    if name == "attention":
        model.opset_import[0].version = 20  # the first with Gelu
    if name == "convolutions":
        _add_rarities(model)
    return model


def _add_rarities(model: onnx.ModelProto) -> None:
    """Give a model a sparse weight, text, typed data and metadata, which few models have."""
    values = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([1, 3]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    model.graph.initializer.append(helper.make_tensor("words", onnx.TensorProto.STRING, [2], ["a", "b"]))
    model.graph.initializer.append(helper.make_tensor("typed", onnx.TensorProto.FLOAT16, [2], [1.0, 2.0]))
    model.metadata_props.add(key="author", value="nobody")
    model.graph.value_info.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["N", 8, 4, 4]))


def models() -> dict[str, bytes]:
    """Return the models that are damaged, by name; the small ones among the cases with them, where these are there."""
    found = {name: written(name).SerializeToString(deterministic=True) for name in TEXTS}
    for path in sorted(CASES.glob("*.onnx")):
        if path.stat().st_size <= LARGEST:
            found[f"cases/{path.stem}"] = path.read_bytes()
    return found


def samples(model: onnx.ModelProto, count: int = 16) -> dict[str, np.ndarray]:
    """Return data for a written model: so many samples for every input."""
    rng = np.random.default_rng(1)
    arrays = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        # Axes past the first that are open.
        shape = [count if axis == 0 else dim.dim_value or 4 for axis, dim in enumerate(dims)]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        arrays[value.name] = (
            rng.integers(0, 2, shape).astype(kind) if kind.kind in "ib" else rng.standard_normal(shape).astype(kind)
        )
    return arrays
