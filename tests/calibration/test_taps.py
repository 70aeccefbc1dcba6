from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Tap, expose
from onnx_subprune.errors import ModelError
from onnx_subprune.model import open_session, run

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[N,4] x) => (float[N,4] y)
{
    hidden = Relu(x)
    doubled = Add(hidden, hidden)
    y = Neg(doubled)
}
"""


def test_key_names_all_that_shapes_the_gram():
    assert Tap("a/b", -1).key == "a/b@-1/1/1"
    assert Tap("x", 1, blocks=4, inner=49).key == "x@1/4/49"
    assert sorted([Tap("b", 0), Tap("a", 2), Tap("a", 1)]) == [Tap("a", 1), Tap("a", 2), Tap("b", 0)]


def test_exposed_tensors_are_outputs_with_the_values_they_have_in_the_graph():
    model = onnx.parser.parse_model(MODEL)
    before = model.SerializeToString(deterministic=True)
    exposed = expose(model, ["doubled", "x", "y", "hidden", "hidden"])
    assert [output.name for output in exposed.graph.output] == ["y", "doubled", "hidden"]
    assert model.SerializeToString(deterministic=True) == before

    x = np.array([[-1, 2, -3, 4]], dtype=np.float32)
    values = run(open_session(exposed), {"x": x})
    np.testing.assert_array_equal(values["hidden"], np.maximum(x, 0))
    np.testing.assert_array_equal(values["doubled"], 2 * np.maximum(x, 0))
    np.testing.assert_array_equal(values["y"], -2 * np.maximum(x, 0))


def test_known_types_are_carried_over():
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(MODEL))
    (added,) = expose(model, ["hidden"]).graph.output[1:]
    assert added.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_tensor_that_is_not_in_the_graph_is_named():
    with pytest.raises(ModelError, match="tensor 'nowhere' expected"):
        expose(onnx.parser.parse_model(MODEL), ["hidden", "nowhere"])
