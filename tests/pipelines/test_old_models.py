"""Weights listed among the inputs: constants before IR version 4, and defaults that may be stripped after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from onnx_subprune import Options, Target, analyse, apply, prune
from onnx_subprune.cli.app import app
from onnx_subprune.model import open_session, run
from onnx_subprune.result import Result

SAMPLES = {"x": np.random.default_rng(1).standard_normal((512, 3, 6, 6)).cumsum(2).cumsum(3).astype(np.float32) / 4}


def _listing(ir: int) -> onnx.ModelProto:
    """Conv, BatchNormalization and a Conv without bias that reads mixtures, all weights listed among the inputs."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(f"""<ir_version: {ir}, opset_import: ["": 9]>
        g (float[N,3,6,6] x) => (float[N,4,6,6] y) {{
            [c1] a = Conv(x, w1)
            [bn] b = BatchNormalization(a, s, t, m, v)
            [r] h = Relu(b)
            [c2] k = Conv <pads=[1,1,1,1]> (h, w2)
            [r2] l = Relu(k)
            [c3] y = Conv(l, w3)
        }}""")
    weights = {"w1": (12, 3, 1, 1), "w2": (8, 12, 3, 3), "w3": (4, 8, 1, 1), "s": (12,), "t": (12,), "m": (12,)}
    arrays = {name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1) for name, shape in weights.items()}
    arrays["v"] = np.ones(12)
    for name, array in arrays.items():
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    onnx.checker.check_model(model)
    return model


def _error(result: Result, model: onnx.ModelProto) -> float:
    outputs = [run(open_session(each), SAMPLES)["y"] for each in (result.model, model)]
    return float(np.linalg.norm(outputs[0] - outputs[1]) / np.linalg.norm(outputs[1]))


def _options(**chosen: object) -> Options:
    return Options(Target("macs", 0.5), threads=1, allocation="uniform", **chosen)  # type: ignore[arg-type]


def test_before_ir_4_they_are_constants_and_stay_listed() -> None:
    model = _listing(3)
    result, channel = (prune(model, SAMPLES, _options(recovery=recovery)) for recovery in ("exact", "channel"))
    assert not [warning for warning in result.warnings if "keeps" in warning]
    assert {"c2", "c3"} <= {layer.name for layer in result.fit.layers}
    assert _error(result, model) < _error(channel, model)
    for pruned in (result.model, channel.model):
        onnx.checker.check_model(pruned)
        listed = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.input}
        stored = {tensor.name: list(tensor.dims) for tensor in pruned.graph.initializer}
        assert stored["w2"][1] < 12
        assert {name: listed[name] for name in stored} == stored
        assert set(listed) == {"x", *stored}


def test_from_ir_4_on_they_are_defaults_unless_they_are_stripped() -> None:
    model = _listing(8)
    with pytest.raises(Exception, match="at least one prunable group"):
        prune(model, SAMPLES, _options())
    result = prune(model, SAMPLES, _options(strip_initializer_inputs=True))
    assert [value.name for value in result.model.graph.input] == ["x"]
    assert len(model.graph.input) > 1
    old = _listing(3)
    assert _error(result, model) == pytest.approx(_error(prune(old, SAMPLES, _options()), old), rel=1e-3)
    again = apply(result.plan, model, SAMPLES, _options(strip_initializer_inputs=True))
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_the_reason_names_the_cause() -> None:
    """A layer whose bias alone is listed keeps its recovery by channel."""
    model = _listing(8)
    del model.graph.input[1:]
    model.graph.node[-1].input.append("b3")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(4, np.float32), "b3"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("b3", onnx.TensorProto.FLOAT, [4]))
    result = prune(model, SAMPLES, _options())
    reasons = [warning for warning in result.warnings if "'c3'" in warning]
    assert "its bias 'b3' is an input of the graph with a default; export without keep_init" in reasons[0]


def test_every_command_strips(tmp_path: Path) -> None:
    path = tmp_path / "listed.onnx"
    onnx.save(_listing(8), path)
    np.savez(tmp_path / "data.npz", **SAMPLES)
    groups = [
        len(json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json", *option]).stdout)["groups"])
        for option in ([], ["--strip-initializer-inputs"])
    ]
    assert groups == [0, 2]
    common = ["--calib", str(tmp_path / "data.npz"), "--strip-initializer-inputs", "--quiet"]
    plan, out = str(tmp_path / "plan.json"), [str(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    made = CliRunner().invoke(app, ["prune", str(path), out[0], "--target", "macs=0.5", "--plan", plan, *common])
    replayed = CliRunner().invoke(app, ["apply", plan, str(path), out[1], *common])
    assert (made.exit_code, replayed.exit_code) == (0, 0), made.output + replayed.output
    assert [value.name for value in onnx.load(out[1]).graph.input] == ["x"]
    low = CliRunner().invoke(app, ["factorise", str(path), out[0], "--target", "macs=0.7", *common])
    assert low.exit_code == 0, low.output
    assert [value.name for value in onnx.load(out[0]).graph.input] == ["x"]


def test_data_holds_no_weights_that_have_defaults(tmp_path: Path) -> None:
    path, data = str(tmp_path / "listed.onnx"), str(tmp_path / "data.npz")
    onnx.save(_listing(8), path)
    np.savez(data, **SAMPLES)
    for words in (["eval", path, path, "--metric", "fidelity"], ["bench", path, "--runs", "1"]):
        done = CliRunner().invoke(app, [*words, "--data", data])
        assert done.exit_code == 0, done.output
    assert analyse(_listing(8), strip_initializer_inputs=True).structure.prunable


def test_a_face_network_of_ir_3(data_dir: Path) -> None:
    folder = data_dir.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"CASES MISSING: expected them at {folder}; this test did not run")
    model, data = str(folder / "arcface_ir3.onnx"), str(folder / "arcface_ir3.npz")
    samples = np.load(data)["data"]

    def outputs(network: onnx.ModelProto) -> np.ndarray:
        session = open_session(network)
        (result,) = zip(*[run(session, {"data": sample[None]}).values() for sample in samples], strict=True)
        return np.concatenate(result)

    expected = outputs(onnx.load(model))
    errors = []
    for recovery in ("exact", "channel"):
        result = prune(model, data, _options(recovery=recovery))
        onnx.checker.check_model(result.model)
        errors.append(np.linalg.norm(outputs(result.model) - expected) / np.linalg.norm(expected))
    assert errors[0] < 0.65 * errors[1]
