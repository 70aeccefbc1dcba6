"""Which outputs hold activations, and which networks read tokens."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate import fidelity
from onnx_subprune.evaluate.output_kinds import OutputKinds
from onnx_subprune.model import input_specs

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[N, 6, 8] x) => (float y)'
CONSTANTS = "<float[8] s = {1,1,1,1,1,1,1,1}, float[8, 2] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, int64[1] one = {1}>"

NORMALISED = "h = LayerNormalization(x, s)"
WRITTEN_OUT = """
    m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean<axes = [-1]>(q)
    e = Constant<value_float = 0.00001>()  b = Add(v, e)  r = Sqrt(b)  z = Div(d, r)  k = Mul(z, s)
"""


@pytest.mark.parametrize("body", [
    "y = LayerNormalization(x, s)",
    f"{NORMALISED}  t = Transpose<perm = [0, 2, 1]>(h)  y = Identity(t)",
    f"{NORMALISED}  y = Gather<axis = 1>(h, one)",
    f"{NORMALISED}  y = ReduceMean<axes = [1]>(h)",
    "h = com.microsoft.SkipLayerNormalization(x, x, s)  y = Cast<to = 1>(h)",
    "p = MatMul(x, w)  y = Tanh(p)",
    "n = ReduceL2<axes = [-1]>(x)  c = Clip(n, one)  l = Expand(c, one)  y = Div(x, l)",
    f"{WRITTEN_OUT} y = Add(k, s)",
])  # fmt: skip
def test_a_normalised_output_holds_activations(body: str) -> None:
    kinds = OutputKinds.of(onnx.parser.parse_model(f"{HEAD} {CONSTANTS} {{ {body} }}"))
    assert kinds.activations == {"y"}
    assert not kinds.tokens


@pytest.mark.parametrize("body", [
    f"{NORMALISED}  y = MatMul(h, w)",
    f"{NORMALISED}  p = MatMul(h, w)  b = Constant<value_floats = [1.0, 2.0]>()  y = Add(p, b)",
    f"{NORMALISED}  y = Add(h, x)",
    # A head of Conv and Relu gives classes, and so does a Softmax that is written out.
    "p = MatMul(x, w)  r = Relu(p)  y = ReduceMean<axes = [1]>(r)",
    "e = Exp(x)  t = ReduceSum(e, one)  y = Div(e, t)",
    "y = Identity(x)",
])  # fmt: skip
def test_other_outputs_may_hold_classes(body: str) -> None:
    assert not OutputKinds.of(onnx.parser.parse_model(f"{HEAD} {CONSTANTS} {{ {body} }}")).activations


@pytest.mark.parametrize(("inputs", "tokens"), [
    ("int64[N, T] input_ids", True),
    ("int64[N, T] attention_mask, int64[N, T] ids", True),
    ("float[N, T, 8] frames, int64[N, T] attention_mask", False),
    ("float[N, T, 8] frames, int64[N] lengths", False),
    ("uint8[N, 3, 32, 32] image", False),
])  # fmt: skip
def test_token_ids_are_told_from_masks_and_images(inputs: str, tokens: bool) -> None:
    first = inputs.split("] ")[1].partition(",")[0]
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float y) {{ y = Cast<to = 1>({first}) }}'
    assert OutputKinds.of(onnx.parser.parse_model(text)).tokens == tokens


def test_fidelity_says_of_each_output_what_it_can() -> None:
    text = HEAD.replace("float y", "float[N, 6, 8] hidden, float[N, 6, 2] y")
    model = onnx.parser.parse_model(
        f"{text} {CONSTANTS} {{ hidden = LayerNormalization(x, s)  y = MatMul(hidden, w) }}"
    )
    data = {"x": np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)}
    result = fidelity(model, model, open_data(data, input_specs(model)))
    hidden, y = result.outputs["hidden"], result.outputs["y"]
    assert (hidden.relative_l2, hidden.agreement, hidden.texts) == (0.0, None, None)
    assert (y.relative_l2, y.agreement, y.texts) == (0.0, 1.0, 1.0)
    words = """<ir_version: 8, opset_import: ["" : 17]> g (int64[N, T] ids) => (float[N, T, 2] y)
        <float[3, 2] table = {1, 2, 4, 3, 5, 6}> { y = Gather(table, ids) }"""
    reader = onnx.parser.parse_model(words)
    ids = {"ids": np.array([[0, 1, 2, 1]])}
    token = fidelity(reader, reader, open_data(ids, input_specs(reader))).outputs["y"]
    assert (token.agreement, token.texts) == (1.0, None)
