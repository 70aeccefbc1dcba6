"""Files that are pruned in part or not at all: one line for each form, and a refusal where nothing is left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.forms import check_forms, forms_of
from onnx_subprune.network.inputs import prepare
from onnx_subprune.options import Options
from onnx_subprune.report import notice_lines

DOMAINS = '"" : 17, "com.microsoft" : 1, "com.microsoft.nchwc" : 1'
GIVEN = {"scale": np.float32(0.1), "zero": np.int8(0)}


def _model(body: str, **weights: object) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{DOMAINS}]> g {body}")
    rng = np.random.default_rng(0)
    for name, value in {**GIVEN, **weights}.items():
        array = rng.standard_normal(value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


PART = """(float[N,6] x) => (float[N,3] y) {
    [a] a = MatMul(x, w1)
    b = Relu(a)
    [c] c = MatMul(b, w2)
    [q] q = QuantizeLinear(c, scale, zero)
    [d] d = DequantizeLinear(q, scale, zero)
    [e] y = MatMul(d, w3)
}"""
WHOLE = (
    """(float[2,3] x) => (float[2,3] y) { q = QuantizeLinear(x, scale, zero)  y = DequantizeLinear(q, scale, zero) }"""
)
PACKED = """(float[2,8] x) => (float[2,4] y) {
    y = com.microsoft.MatMulNBits <K=8, N=4, bits=4, block_size=16> (x, packed, scales)
}"""
LAID_OUT = """(float[1,8,4,4] x) => (float[1,8,4,4] y) {
    r = com.microsoft.nchwc.ReorderInput(x)
    c = com.microsoft.nchwc.Conv(r, w)
    y = com.microsoft.nchwc.ReorderOutput <channels=8> (c)
}"""
IN_A_BODY = """(float[2,8] x, bool flag) => (float[2,8] y) {
    y = If (flag) <
        then_branch = yes () => (float[2,8] a) { q = QuantizeLinear(x, scale, zero)
                                                 a = DequantizeLinear(q, scale, zero) },
        else_branch = no () => (float[2,8] b) { b = Relu(x) }
    >
}"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (WHOLE, "2 nodes (1 QuantizeLinear, 1 DequantizeLinear) are quantised"),
        (PACKED, "1 node (1 MatMulNBits) is quantised"),
        (IN_A_BODY, "2 nodes (1 QuantizeLinear, 1 DequantizeLinear) are quantised"),
        (LAID_OUT, "3 nodes (1 ReorderInput, 1 Conv, 1 ReorderOutput) are laid out for one kind of processor"),
    ],
)
def test_a_form_is_one_line_that_says_what_to_do(body: str, words: str) -> None:
    (line,) = forms_of(_model(body))
    assert line.startswith(words)
    assert "\n" not in line
    assert "prune the float model, then quantise" in line or "save it at level 'extended'" in line


def test_nodes_of_local_functions_count() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 17, "f" : 1]>
        g (float[2] x, float s, int8 z) => (float[2] y) { y = f.Round(x, s, z) }
        <domain: "f", opset_import: ["" : 17]> Round (x, s, z) => (y) {
            q = QuantizeLinear(x, s, z)
            y = DequantizeLinear(q, s, z)
        }""")
    assert len(forms_of(model)) == 1


def test_a_float_model_has_no_form() -> None:
    assert forms_of(_model("(float[2] x) => (float[2] y) { y = my.QuantizeLinear(x) }")) == ()
    check_forms((), prunable=False)


def test_float_layers_of_a_partly_quantised_model_are_pruned() -> None:
    model = _model(PART, w1=(6, 8), w2=(8, 5), w3=(5, 3))
    analysis, _ = prepare(model, None, Options())
    assert [group.name for group in analysis.structure.prunable] == ["a"]
    assert "is quantised: prune the float model before" in next(
        reason for group in analysis.structure.frozen if group.name == "c" for reason in group.reasons
    )
    (line,) = analysis.document()["forms"]
    assert notice_lines(analysis.document()) == [line]


@pytest.mark.parametrize("body", [WHOLE, LAID_OUT])
def test_a_model_of_which_nothing_is_left_is_refused(body: str) -> None:
    model = _model(body, w=(8, 8, 1, 1))
    assert analyse(model).forms == forms_of(model), "inspect shows it"
    with pytest.raises(ModelError, match=r"expected layers that can be pruned, found none: .* nodes"):
        prepare(model, None, Options())
