"""Outputs that neither ONNX nor a rule knows: one run says their rank, type and sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune import analyse
from onnx_subprune.network import observed_shapes
from onnx_subprune.network.observed_shapes import observe

# No rule is for CDist, and ONNX knows nothing of it: of points [n, d] and [m, d] the distances [n, m].
TEXT = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
g (float[N,6] x) => (float[N,3] y) {
    d = com.microsoft.CDist(x, points)
    [m1] h = MatMul(d, w1)
    r = Relu(h)
    [m2] y = MatMul(r, w2)
}"""


@pytest.fixture
def model() -> onnx.ModelProto:
    built = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"points": (5, 6), "w1": (5, 8), "w2": (8, 3)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        built.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return built


def test_types_and_sizes_come_from_a_run(model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model)
    (info,), sizes = observe(inferred, {"x": (4, 6)}, {})
    assert sizes == {"d": (4, 5)}
    assert info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [dim.WhichOneof("value") for dim in info.type.tensor_type.shape.dim] == [None, None], "sizes of one run"


def test_layers_behind_it_can_be_pruned(model: onnx.ModelProto, mask_oracle) -> None:
    analysis = analyse(model, {"x": (4, 6)})
    assert [(group.name, group.size, group.macs) for group in analysis.structure.prunable] == [("m1", 8, 4 * 8 * 8)]
    mask_oracle(model, {"x": (4, 6)}, run_shapes={"x": (7, 6)})
    assert not model.graph.value_info, "the user's model stays as it was"


def test_where_the_model_does_not_run_the_layers_behind_it_stay(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "CDist":
            node.op_type = "NoSuchOperator"
            node.domain = "my.own"
    model.opset_import.add(domain="my.own", version=1)
    assert observe(onnx.shape_inference.infer_shapes(model), {"x": (4, 6)}, {}) == ([], {})


def test_real_inputs_go_before_made_up_ones(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[float] = []
    monkeypatch.setattr(observed_shapes, "run", lambda _, feeds: fed.append(float(feeds["x"].sum())) or {})
    for sample in ({"x": np.ones((4, 6), np.float32)}, {"x": np.ones((3, 6), np.float32)}):
        observe(model, {"x": (4, 6)}, sample)
    assert fed == [24.0, 0.0], "a sample of other sizes is not used"


def test_nothing_runs_where_everything_is_known(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_shapes, "open_session", lambda *_, **__: pytest.fail("a session was opened"))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, ["N", 5]))
    assert observe(model, {"x": (4, 6)}, {}) == ([], {})
