"""Tensors before operators that saturate or compare."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.model.saturation import before_saturation


def before(text: str, branches: dict[str, tuple[str, str]] | None = None) -> dict[str, str]:
    """Return what stands for y in a network that makes h first."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) {{ h = Neg(x) {text} }}'
    )
    makers = {name: node for node in model.graph.node for name in node.output}
    varying = {name for name, node in makers.items() if node.op_type != "Constant"}
    return before_saturation("y", makers, varying, branches or {})


@pytest.mark.parametrize("operator", ["HardSigmoid", "Sigmoid", "Softmax", "Tanh"])
def test_what_saturates_is_replaced_by_what_it_reads(operator: str) -> None:
    assert before(f"[n] s = {operator}(h) y = Flatten(s)") == {"h": f"{operator} 'n' saturates behind it"}


def test_what_computes_or_reads_an_input_stands_for_itself() -> None:
    assert before("s = Sigmoid(h) y = Neg(s)") == {}
    assert before("y = Sigmoid(x)") == {}, "inputs are the same in all networks"


def test_parts_that_do_not_saturate_stay_beside_those_that_do() -> None:
    reasons = before("[n] s = Sigmoid(h) p = Abs(h) y = Concat<axis = 0>(s, p)")
    assert reasons == {"h": "Sigmoid 'n' saturates behind it", "p": "beside a saturating operator"}


def test_both_sides_of_a_comparison_are_compared_instead() -> None:
    reasons = before("p = Abs(h) c = Less(h, p) y = Cast<to = 1>(c)")
    assert reasons == {"h": "Less 'c' compares it", "p": "Less 'c' compares it"}


def test_the_output_of_an_if_is_replaced_by_what_stands_for_it() -> None:
    chosen = "i = If(c) <then_branch = a () => (float[N,4] s) { s = Sigmoid(h) }, else_branch = b () => (float[N,4] t) "
    text = f"c = Constant<value = bool {{1}}>() {chosen} {{ t = Tanh(h) }}> y = Identity(i)"
    assert before(text, {"i": ("i/in_branch", "why")}) == {"i/in_branch": "why"}
    assert before(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "y = ReduceMax<axes = [1], keepdims = 0>(s)",
        "m = ReduceMin<axes = [1]>(s) y = Flatten(m)",
        "k = Constant<value_ints = [2]>() y, i = TopK(s, k)",
        "y = Max(s, s)",
        "floor = Constant<value = float {0.1}>() m = Max(s, floor) y = ReduceMax<axes = [1]>(m)",
    ],
)
def test_the_largest_of_what_saturates_is_replaced_too(text: str) -> None:
    """The best score of every anchor, by which a detector chooses, is next to zero where all of them are."""
    assert before(f"[n] s = Sigmoid(h) {text}") == {"h": "Sigmoid 'n' saturates behind it"}


@pytest.mark.parametrize(
    "text", ["y = ReduceMax<axes = [1]>(h)", "s = Sigmoid(h) y = Max(s, h)", "s = Sigmoid(h) y = ReduceSum(s)"]
)
def test_the_largest_of_what_does_not_saturate_stands_for_itself(text: str) -> None:
    assert before(text) == {}
