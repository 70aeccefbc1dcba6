"""MACs of attention in one operator, by hand: B S T H C for queries by keys, B S T H V for values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import measure_cost

B, S, T, H, K, C, V = 2, 5, 7, 4, 2, 16, 6
LENS = {"lens": np.array([4, 4], np.int32), "total": np.array(5, np.int32)}
CASES = {
    "packed": (
        "float[2,5,10] x",
        "com.microsoft.Attention <num_heads=4, qkv_hidden_sizes=[64,64,24]> (x, w, b)",
        {"w": (10, 152), "b": (152,)},
        B * S * 10 * 152 + B * S * S * H * (C + V),
    ),
    "multi_head": (
        "float[2,5,64] q, float[2,7,64] k, float[2,7,24] v",
        "com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v)",
        {},
        B * S * T * H * (C + V),
    ),
    "multi_head_with_a_cache": (
        "float[2,5,64] q, float[2,5,64] k, float[2,5,64] v, float[2,4,2,16] pk, float[2,4,2,16] pv",
        "com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v, , , , pk, pv)",
        {},
        B * S * T * H * 2 * C,
    ),
    "split_keys": (
        "float[2,5,64] q, float[2,4,7,16] k, float[2,4,7,16] v",
        "com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v)",
        {},
        B * S * T * H * 2 * C,
    ),
    "grouped": (
        "float[2,5,64] q, float[2,5,32] k, float[2,5,32] v",
        "com.microsoft.GroupQueryAttention <num_heads=4, kv_num_heads=2> (q, k, v, , , lens, total)",
        LENS,
        B * S * S * H * 2 * C,
    ),
    "grouped_in_one": (
        "float[2,5,128] q",
        "com.microsoft.GroupQueryAttention <num_heads=4, kv_num_heads=2> (q, , , , , lens, total)",
        LENS,
        B * S * S * H * 2 * C,
    ),
    "onnx": (
        "float[2,5,64] q, float[2,7,32] k, float[2,7,12] v",
        "Attention <q_num_heads=4, kv_num_heads=2> (q, k, v)",
        {},
        B * S * T * H * (C + V),
    ),
    "onnx_apart": (
        "float[2,4,5,16] q, float[2,4,7,16] k, float[2,4,7,6] v",
        "Attention(q, k, v)",
        {},
        B * S * T * H * (C + V),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    inputs, node, weights, expected = CASES[case]
    rank = "a,b,c,d" if case == "onnx_apart" else "a,b,c"
    more = ", nk, nv" if "GroupQuery" in node else ""
    text = f'<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]> g ({inputs}) => (float[{rank}] y)'
    model = onnx.parser.parse_model(f"{text} {{ y{more} = {node} }}")
    for name, value in weights.items():
        array = np.ones(value, np.float32) if isinstance(value, tuple) else value
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert measure_cost(model).macs == expected
