"""What the branches of Ifs give before it saturates: where it is found, and that networks can be opened there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork
from onnx_subprune.model import open_session, run
from onnx_subprune.model.branch_ends import branch_ends, show_branch_ends
from onnx_subprune.model.compared_models import comparable_tensors, opened_for_comparison
from onnx_subprune.model.decisions import comparisons_of

X = np.array([[1.0, -2.0]], np.float32)


def build(then: str, other: str, behind: str = "y = Identity(z)", kind: str = "float") -> onnx.ModelProto:
    """Return a network whose If gives z of a body that ends in t and one that ends in e; h is made before it."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,2] x, bool c) => ({kind}[M,N] y) <float[2,2] w = {{1, 2, 3, 4}}>
        {{ h = MatMul(x, w) p = Sigmoid(h)
           z = If(c) <then_branch = a () => ({kind}[M,N] t) {{ {then} }},
                      else_branch = b () => ({kind}[M,N] e) {{ {other} }}> {behind} }}"""
    )


def shown(model: onnx.ModelProto, name: str, condition: bool) -> NDArray[np.float32]:
    values = run(open_session(opened_for_comparison(model, [name])), {"x": X, "c": np.array(condition)})
    value: NDArray[np.float32] = values[name]
    return value


H = X @ np.array([[1, 2], [3, 4]], np.float32)


@pytest.mark.parametrize(
    ("then", "other", "expected"),
    [
        ("n = Neg(h) t = Sigmoid(n)", "e = Identity(p)", (-H, H)),
        ("n = Neg(h) s = Tanh(n) t = Transpose(s)", "e = Abs(h)", (-H, abs(H))),
        ("n = Abs(h) t = Softmax(n)", "m = Neg(h) e = Sigmoid(m)", (abs(H), -H)),
        ("n = Neg(h) d = Cast<to = 11>(n) s = Sigmoid(d) t = Cast<to = 1>(s)", "e = Identity(h)", (-H, H)),
    ],
)
def test_each_branch_gives_what_it_saturates(
    then: str, other: str, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    model = build(then, other)
    written = model.SerializeToString(deterministic=True)
    (point,) = comparisons_of(model).points
    assert (point.tensor, point.outputs) == ("z/in_branch", ("y",))
    assert "saturates behind it" in str(point.reason)
    assert "z/in_branch" in comparable_tensors(model)
    for condition, values in zip((True, False), expected, strict=True):
        np.testing.assert_allclose(shown(model, "z/in_branch", condition), values, rtol=1e-6)
    assert model.SerializeToString(deterministic=True) == written, "the model itself stays as it is"


def test_a_comparison_in_a_branch_is_compared_before_it() -> None:
    model = build(
        "k = Constant<value = float {0}>() t = Greater(h, k)",
        "k = Constant<value = float {1}>() n = Neg(h) e = Less(n, k)",
        kind="bool",
    )
    np.testing.assert_array_equal(shown(model, "z/in_branch", condition=False), -H)
    assert comparisons_of(model).points[0].reason == "Greater 't' compares it"


def test_ifs_within_branches_are_followed() -> None:
    inner = """q = If(c) <then_branch = i () => (float[M,N] u) { m = Neg(h) u = Sigmoid(m) },
                          else_branch = j () => (float[M,N] v) { v = Identity(p) }> """
    model = build(f"{inner} t = Identity(q)", "n = Abs(h) e = Tanh(n)")
    np.testing.assert_array_equal(shown(model, "z/in_branch", condition=True), -H)
    np.testing.assert_array_equal(shown(model, "z/in_branch", condition=False), abs(H))


@pytest.mark.parametrize(
    ("then", "other"),
    [
        ("t = Neg(h)", "e = Abs(h)"),
        ("s = Sigmoid(h) t = Neg(s)", "e = Abs(h)"),
        ("a = Neg(h) s = Sigmoid(a) b = Abs(h) r = Tanh(b) t = Concat<axis = 0>(s, r)", "e = Abs(h)"),
        ("k = Constant<value = float[1,2] {1, 2}>() t = Sigmoid(k)", "e = Abs(h)"),
    ],
)
def test_branches_that_do_not_saturate_or_join_several_are_left(then: str, other: str) -> None:
    model = build(then, other)
    assert branch_ends(model.graph) == {}
    assert [point.tensor for point in comparisons_of(model).points] == ["y"]


def test_every_end_is_an_output_of_its_if_that_the_checker_accepts() -> None:
    model = build("n = Neg(h) t = Sigmoid(n)", "e = Identity(p)")
    show_branch_ends(model.graph)
    assert [list(node.output) for node in model.graph.node if node.op_type == "If"] == [["z", "z/in_branch"]]
    onnx.checker.check_model(model, full_check=True)


def test_networks_are_compared_in_the_branch_that_the_first_one_takes() -> None:
    then, other = "n = Mul(h, h) t = Sigmoid(n)", "e = Identity(p)"
    dense, pruned = build(then, other), build(then, other)
    pruned.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((2, 2), 2, np.float32), "w"))
    reference = ReferenceNetwork(dense)
    expected = reference.run({"x": X, "c": np.array(True)})
    values = ComparedNetwork(pruned, reference).run(expected)
    np.testing.assert_array_equal(expected.values["z/in_branch"], H * H)
    np.testing.assert_array_equal(values["z/in_branch"], [[4.0, 4.0]])


def test_an_if_that_is_gone_is_compared_at_the_output() -> None:
    dense = build("n = Neg(h) t = Sigmoid(n)", "e = Identity(p)")
    reference = ReferenceNetwork(dense)
    other = build("t = Neg(h)", "e = Abs(h)")
    values = ComparedNetwork(other, reference).run(reference.run({"x": X, "c": np.array(True)}))
    assert values.keys() == {"y"}
