"""The last gate: what is not finite does not open it, and a misread structure is named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import pipeline
from onnx_subprune.demo import load_demo
from onnx_subprune.errors import InternalError
from onnx_subprune.network import inputs as sources
from onnx_subprune.network.verify import disagreement, relative_error, verify
from onnx_subprune.options import Options, Target

INF = float("inf")
oracle = import_module("onnx_subprune.network.verify")


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


def test_behind_a_sigmoid_small_outputs_are_compared_before_it() -> None:
    """At -40 a Sigmoid gives 4e-18: a rounding error of its input is one of 1e-3 there."""

    def net(bias: float) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            net (float[2] x) => (float[2] y) <float b = {{{bias}}}> {{
                z = Add(x, b)
                y = Sigmoid(z)
            }}"""
        )

    probe = {"x": np.zeros(2, np.float32)}
    assert disagreement(net(-40.001), net(-40.0), probe) == pytest.approx(2.5e-5, rel=0.1)
    assert disagreement(net(-30.0), net(-40.0), probe) == pytest.approx(0.25, rel=0.1)
    assert [value.name for value in net(0.0).graph.output] == ["y"]


def test_a_misread_structure_writes_nothing_and_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load_demo()
    genuine = oracle.references

    def misread(analysis: pipeline.Analysis, plan: pipeline.Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        shrunk, masked = genuine(analysis, plan)
        removed = {group.name for group in plan.groups if len(group.kept) < group.size}
        if "block3.conv1" in removed:
            bias = next(t for t in shrunk.graph.initializer if t.name == "classifier.bias")
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 9, bias.name))
        return shrunk, masked

    monkeypatch.setattr(oracle, "references", misread)
    calib = {name: values[:32] for name, values in demo.calibration.items()}
    with pytest.raises(InternalError, match=r"prune with --ignore 'block3\.conv1', and please report"):
        pipeline.prune(demo.model_path, calib, Options(target=Target("units", 0.5)))


def test_passes_that_change_the_network_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load_demo()
    genuine = sources.take_apart

    def changed(model: Any, *shapes: Any, **options: Any) -> pipeline.Analysis:
        analysis = genuine(model, *shapes, **options)
        bias = next(t for t in analysis.normalised.graph.initializer if t.name == "classifier.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 9, bias.name))
        return analysis

    monkeypatch.setattr(sources, "take_apart", changed)
    calib = {name: values[:32] for name, values in demo.calibration.items()}
    with pytest.raises(InternalError, match="spellings unified was expected to compute what the given one does"):
        pipeline.prune(demo.model_path, calib, Options(target=Target("units", 0.5)))


def test_a_group_that_cannot_go_alone_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and keys are gone with the values only; the message is that of the gate all the same."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2,5,6] x) => (float[2,5,3] y) {
            [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv) kt = Transpose <perm=[0,2,1]> (k)
            s = MatMul(q, kt) p = Softmax(s) [a] a = MatMul(p, v)
            [o] o = MatMul(a, wo) t = Add(o, x) [out] y = MatMul(t, wy)
        }"""
    )
    for name, shape in {"wq": (6, 4), "wk": (6, 4), "wv": (6, 4), "wo": (4, 6), "wy": (6, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    monkeypatch.setattr(oracle, "disagreement", lambda _, expected, *__: 0.0 if expected is model else INF)
    calib = {"x": rng.normal(size=(8, 5, 6)).astype(np.float32)}
    options = Options(target=Target("units", 0.0), batch_size=2)
    with pytest.raises(InternalError, match=r"prune with --ignore 'v', and please report"):
        pipeline.prune(model, calib, options)


def test_a_shrunk_model_that_cannot_run_was_misread() -> None:
    def model(width: int) -> onnx.ModelProto:
        text = '<ir_version: 8, opset_import: ["": 17]> g (float[2,n] x) => (float[a,b] y) { y = MatMul(x, w) }'
        built = onnx.parser.parse_model(text)
        built.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((width, 3), np.float32), "w"))
        return built

    probe = {"x": np.ones((2, 4), np.float32)}
    assert disagreement(model(4), model(4), probe) == 0.0
    assert disagreement(model(3), model(4), probe) == INF


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
