"""The last gate: what is not finite does not open it, and a misread structure is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune import pipeline
from onnx_subprune.data import load_demo
from onnx_subprune.errors import InternalError
from onnx_subprune.options import Options, Target
from onnx_subprune.verify import relative_error, verify

INF = float("inf")


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([1.0, INF], [1.0, INF], 0.0),
        ([1.0, float("nan")], [1.0, float("nan")], 0.0),
        ([1.5, -INF], [1.0, -INF], 0.5),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, 3.0], [1.0, INF], INF),
        ([1.0, float("nan")], [1.0, 1.0], INF),
        ([0.0], [0.0], 0.0),
        ([], [], 0.0),
        ([1.0], [1.0, 1.0], INF),
    ],
)
def test_relative_errors(found: list[float], expected: list[float], error: float) -> None:
    assert relative_error(np.array(found), np.array(expected)) == error


def test_a_misread_structure_writes_nothing_and_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load_demo()
    genuine = pipeline.references

    def misread(analysis: pipeline.Analysis, plan: pipeline.Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        shrunk, masked = genuine(analysis, plan)
        removed = {group.name for group in plan.groups if len(group.kept) < group.size}
        if "block3.conv1" in removed:
            bias = next(t for t in shrunk.graph.initializer if t.name == "classifier.bias")
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 9, bias.name))
        return shrunk, masked

    monkeypatch.setattr(pipeline, "references", misread)
    calib = {name: values[:32] for name, values in demo.calibration.items()}
    with pytest.raises(InternalError, match=r"prune with --ignore 'block3\.conv1', and please report"):
        pipeline.prune(demo.model_path, calib, Options(target=Target("units", 0.5)))


def test_a_model_that_gives_another_shape_is_refused() -> None:
    def model(text: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[n] y) {{ {text} }}'
        )

    probe = {"x": np.ones(2, np.float32)}
    verify(model("y = Neg(x)"), model("y = Abs(x)"), probe)
    with pytest.raises(InternalError, match="expected to be finite and of shape"):
        verify(model("y = Concat <axis=0> (x, x)"), model("y = Neg(x)"), probe)
    with pytest.raises(InternalError, match="expected to be finite"):
        verify(model("z = Sub(x, x) y = Div(x, z)"), model("y = Neg(x)"), probe)
    broken = model("y = Neg(x)")
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InternalError, match="not valid ONNX"):
        verify(broken, model("y = Neg(x)"), probe)
