"""An If that takes the branch it is told to, at every depth, and gets its own condition back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_subprune.model import open_session, run
from onnx_subprune.model.forced_branches import (
    branch_input,
    with_branch_as_input,
    with_branch_taken,
    with_branches_taken,
    with_conditions_of,
)

X = np.array([-1.0, 2.0], np.float32)
INNER = (
    "r = If(d) <then_branch = u () => (float[2] p) { p = Neg(x) }, else_branch = v () => (float[2] q) { q = Exp(x) }>"
)
NESTED = f"""<ir_version: 8, opset_import: ["" : 17]> g (bool c, bool d, float[2] x) => (float[2] y) {{
    y = If(c) <
        then_branch = t () => (float[2] a) {{ {INNER}  a = Identity(r) }},
        else_branch = e () => (float[2] b) {{ b = Abs(x) }}>
}}"""


@pytest.fixture
def nested() -> onnx.ModelProto:
    """Return `then: Neg or Exp, else: Abs`, by the inputs c and d."""
    model = parser.parse_model(NESTED)
    onnx.checker.check_model(model, full_check=True)
    return model


def result(model: onnx.ModelProto, **more: np.ndarray) -> list[float]:
    feeds = {"c": np.array(False), "d": np.array(False), "x": X, **more}
    return [round(float(value), 4) for value in run(open_session(model), feeds)["y"]]


@pytest.mark.parametrize(
    ("ifs", "then", "expected"),
    [
        (["y"], True, [0.3679, 7.3891]),
        (["y", "r"], True, [1.0, -2.0]),
        (["y", "r"], False, [1.0, 2.0]),
        (["r"], True, [1.0, 2.0]),
        (["no such If"], True, [1.0, 2.0]),
    ],
)
def test_the_ifs_that_are_named_take_the_branch(nested, ifs, then, expected):
    given = nested.SerializeToString()
    assert result(with_branch_taken(nested, ifs, then=then)) == expected
    assert nested.SerializeToString() == given


def test_every_if_takes_a_branch_of_its_own(nested):
    assert result(with_branches_taken(nested, {"y": True, "r": False})) == [0.3679, 7.3891]
    assert result(with_branches_taken(nested, {"y": True, "r": True})) == [1.0, -2.0]
    assert with_branches_taken(nested, {}) == nested


def test_one_network_takes_either_branch_by_an_input_and_has_its_conditions_back(nested):
    asking = with_branch_as_input(nested, ["y", "r"])
    assert result(asking, **branch_input(then=True)) == [1.0, -2.0]
    assert result(asking, **branch_input(then=False)) == [1.0, 2.0]
    assert with_conditions_of(asking, nested, ["y", "r"]) == nested
