"""Initializers among the inputs are constants before IR version 4, and defaults from then on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import (
    given_names,
    list_initializers,
    overridable_initializers,
    overridable_warnings,
    without_overridable,
)


def _model(ir: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: {ir}, opset_import: ["": 8]>
        g (float[1,2] x, float[2] w) => (float[1,2] y) <float[2] w = {{1.0, 2.0}}> {{ y = Add(x, w) }}""")


@pytest.mark.parametrize(("ir", "overridable", "given"), [(3, set(), {"x"}), (8, {"w"}, {"x", "w"})])
def test_who_decides_the_values(ir: int, overridable: set[str], given: set[str]) -> None:
    assert overridable_initializers(_model(ir)) == overridable
    assert given_names(_model(ir)) == given


def test_defaults_become_constants_in_a_copy() -> None:
    model = _model(8)
    stripped = without_overridable(model)
    assert [value.name for value in stripped.graph.input] == ["x"]
    assert [value.name for value in model.graph.input] == ["x", "w"]
    old = _model(3)
    assert without_overridable(old) is old, "there they are constants, and must be listed"


@pytest.mark.parametrize("ir", [3, 8])
def test_the_list_follows_what_came_and_went(ir: int) -> None:
    before, model = _model(ir), _model(ir)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((2,), np.float32), "new"))
    model.graph.node[0].input[1] = "new"
    listed = list_initializers(model, before)
    assert [value.name for value in listed.graph.input] == (["x", "new"] if ir == 3 else ["x", "w"])
    onnx.checker.check_model(listed)


def test_the_user_is_told_how_to_make_constants_of_them() -> None:
    (said,) = overridable_warnings(_model(8))
    assert said.startswith("1 weights are inputs with defaults ('w')")
    assert "--strip-initializer-inputs" in said
    assert overridable_warnings(_model(3)) == []
    assert overridable_warnings(without_overridable(_model(8))) == []
