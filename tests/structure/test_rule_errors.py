"""A node that is malformed is refused with a reason; an error in a rule is a bug of ours, and is told as one."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.model import to_graph
from onnx_subprune.structure import RuleError, Structure, infer, rule_errors
from onnx_subprune.structure.context import Context
from onnx_subprune.structure.rules import RULES

CHAIN = """g (float[2,3,6,6] x) => (float[2,4,6,6] y) <float[8,3,1,1] w1, float[4,8,1,1] w2> {
    [c1] h = Conv(x, w1)
    %s
    [c2] y = Conv(r, w2)
}"""


def _inferred(text: str, opset: int = 17, image: str = "2,3,6,6") -> Structure:
    domains = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{domains}\n{(CHAIN % text).replace('2,3,6,6', image, 1)}")
    for name, shape in (("w1", (8, 3, 1, 1)), ("w2", (4, 8, 1, 1))):
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [0.5] * (shape[0] * shape[1]))
        model.graph.initializer.append(tensor)
    return infer(to_graph(model), {"x": (2, 3, 6, 6)})


def _reasons(structure: Structure, name: str) -> str:
    (group,) = (group for group in structure.groups if group.name == name)
    return "; ".join(group.reasons)


def _broken(node: gs.Node, ctx: Context) -> None:
    raise KeyError(node.op)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rule of Relu have a bug."""
    monkeypatch.setitem(RULES, ("", "Relu"), _broken)


@pytest.mark.usefixtures("broken")
def test_a_bug_in_a_rule_fails_in_tests() -> None:
    with pytest.raises(InternalError, match="the rule for Relu 'act' failed"):
        _inferred("[act] r = Relu(h)")


@pytest.mark.usefixtures("broken")
def test_for_users_a_bug_in_a_rule_is_told_and_freezes_what_the_node_touches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rule_errors, "RAISED", False)
    structure = _inferred("[act] r = Relu(h)")
    assert structure.rule_errors == (RuleError("Relu", "act", "KeyError: 'Relu'"),)
    assert "the rule for Relu 'act' failed (KeyError: 'Relu'); please report this" in _reasons(structure, "c1")
    assert "please report this" in caplog.text
    assert structure.copy().rule_errors == structure.rule_errors


def test_a_rule_that_does_not_understand_a_node_is_no_bug() -> None:
    structure = _inferred("[odd] r = NotAnOperator(h)")
    assert structure.rule_errors == ()
    assert "no rule for operator NotAnOperator 'odd'" in _reasons(structure, "c1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("r = Transpose<perm=[0,1,2]>(h)", "permutes 4 axes by [0, 1, 2]"),
        ("r = Concat(h, h)", "lacks its attribute 'axis'"),
        ("r = Concat<axis=7>(h, h)", "names axis 7 of a tensor of 4 axes"),
        ("k = ReduceMean<axes=[2,3], keepdims=0>(h)\n r = Concat<axis=0>(h, k)", "reads inputs of [4, 2] axes"),
        ("r = Split<axis=5>(h)", "names axis 5"),
        ("r = Gather<axis=9>(h, h)", "names axis 9"),
        ("r = Flatten<axis=6>(h)", "names axis 6"),
        ("r = Softmax<axis=4>(h)", "names axis 4"),
        ("r = LayerNormalization<axis=-5>(h, h)", "names axis -5"),
        ("r = LpNormalization<axis=4>(h)", "names axis 4"),
        ("r = ArgMax<axis=4>(h)", "names axis 4"),
        ("r = TopK<axis=4>(h, h)", "names axis 4"),
        ("r = BatchNormalization(h, h, h, h, h)", "of 4 axes, where 1 are expected"),
        ("r = MaxPool(h)", "lacks its attribute 'kernel_shape'"),
        ("r = MaxPool<kernel_shape=[2]>(h)", "reads inputs of [4, 3] axes"),
        ("r = MaxPool<kernel_shape=[2,2], strides=[2]>(h)", "has 1 'strides' for 2 axes"),
        ("r = MaxPool<kernel_shape=[2,2], strides=[0,1]>(h)", "slides by 0"),
        ("r = DepthToSpace(h)", "lacks its attribute 'blocksize'"),
        ("r = DepthToSpace<blocksize=0>(h)", "has 0 as its 'blocksize'"),
        ("r = OneHot(h, h)", "takes sizes that are computed from data"),
        ("r = CumSum(h)", "takes sizes that are computed from data"),
        ("r = GridSample(h)", "lacks input 1"),
        ("r = LSTM(h, w1, w1)", "reads 'h' of 4 axes, where 3 are expected"),
        ("r = com.microsoft.MultiHeadAttention(h, h, h)", "lacks its attribute 'num_heads'"),
        ("r = com.microsoft.MultiHeadAttention<num_heads=0>(h, h, h)", "has 0 as its 'num_heads'"),
        ("k = GlobalMaxPool(h)\n f = Flatten(k)\n r = com.microsoft.RotaryEmbedding(f, h)", "turns a tensor of 2 axes"),
        ("r = com.microsoft.EmbedLayerNormalization(h)", "of 4 axes, where 2 are expected"),
    ],
)  # fmt: skip
def test_malformed_nodes_are_refused_with_a_reason(text: str, words: str) -> None:
    structure = _inferred(text.replace("r =", "[odd] r =", 1) if text.startswith("r =") else text)
    assert words in "; ".join(reason for group in structure.groups for reason in group.reasons)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("r = Pad<pads=[0,0,1,1]>(h)", "gives 4 pads for 4 axes"),
        ("r = Slice<starts=[0,1], ends=[2]>(h)", "gives 2 starts, 1 ends"),
        ("r = Slice<starts=[0], ends=[2], axes=[9]>(h)", "names axis 9"),
        ("r = ReduceSum<axes=[5]>(h)", "names axis 5"),
        ("r = Squeeze<axes=[4]>(h)", "names axis 4"),
        ("r = Unsqueeze<axes=[1,1]>(h)", "inserts one axis twice"),
        ("r = Reshape<shape=[0,0,0,0,0]>(h)", "copies the size of an axis that its input does not have"),
    ],
)
def test_malformed_lists_are_refused_with_a_reason(text: str, words: str) -> None:
    structure = _inferred(text.replace("r =", "[odd] r =", 1), opset=4 if "Reshape" in text else 9)
    assert words in _reasons(structure, "c1")
