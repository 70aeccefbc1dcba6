"""Networks in half precision as tools write them, the whole way through: in one type, between casts, and in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_subprune import Options, Target, factorise, prune
from onnx_subprune.cli import run as cli
from onnx_subprune.errors import ModelError
from onnx_subprune.evaluate import bench
from onnx_subprune.model import in_float32, open_session, run

CODES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
BODY = """
    [c1] c1 = Conv<pads=[1,1,1,1]>({x}, w1, b1)
    [n1] n1 = BatchNormalization(c1, s1, t1, m1, v1)
    r1 = Relu(n1)
    [c2] c2 = Conv<pads=[1,1,1,1]>(r1, w2)
    [n2] n2 = BatchNormalization(c2, s2, t2, m2, v2)
    r2 = Relu(n2)
    p = GlobalAveragePool(r2)
    f = Flatten(p)
"""
# A whole network in the type; one that takes and gives float32 (`keep_io_types`); one whose head is kept in float32.
STYLES = {
    "whole": ("{half}", "{half}", BODY.format(x="x") + "[fc] y = Gemm(f, w3, b3)"),
    "ends": (
        "float", "float", "h = Cast<to={code}>(x)" + BODY.format(x="h") + "[fc] k = Gemm(f, w3, b3) y = Cast<to=1>(k)",
    ),
    "head": (
        "float", "float",
        "h = Cast<to={code}>(x)" + BODY.format(x="h") + "g = Cast<to=1>(f) [fc] y = Gemm(g, w4, b4)",
    ),
}  # fmt: skip


def _network(kind: str, style: str) -> onnx.ModelProto:
    taken, given, body = STYLES[style]
    names = {"half": kind, "code": CODES[kind]}
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 22]> g ({taken.format(**names)}[N,3,8,8] x) => '
        f"({given.format(**names)}[N,5] y) {{ {body.replace('{code}', str(CODES[kind]))} }}"
    )
    rng = np.random.default_rng(0)
    shapes = {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (16, 12, 3, 3), "w3": (16, 5), "b3": (5,)}
    weights = {name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()}
    for layer, width in (("1", 12), ("2", 16)):
        weights |= {f"{letter}{layer}": rng.standard_normal(width) for letter in "tm"}
        weights |= {f"{letter}{layer}": rng.uniform(0.5, 1.5, width) for letter in "sv"}
    stored = {name: values.astype(DTYPES[kind]) for name, values in weights.items()}
    if style == "head":
        for name, single in (("w3", "w4"), ("b3", "b4")):
            stored[single] = stored.pop(name).astype(np.float32)
    for name, values in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def _images(count: int = 256) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", CODES)
def test_a_network_is_pruned_in_its_own_type(kind: str, style: str, effort: str) -> None:
    model = _network(kind, style)
    options = Options.of_effort(effort, target=Target("units", 0.6), threads=1)
    result, wide = (prune(each, {"x": _images()}, options) for each in (model, in_float32(model)))
    assert [group.kept for group in result.plan.groups] == [group.kept for group in wide.plan.groups]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert all(types.get(t.name, CODES[kind]) == t.data_type for t in result.model.graph.initializer)
    assert [value.type.tensor_type.elem_type for value in result.model.graph.input] == [
        value.type.tensor_type.elem_type for value in model.graph.input
    ]
    assert not [warning for warning in result.warnings if "floating-point weights" in warning]
    # Weights of 8 or 11 bits, in three layers.
    probe = {"x": _images(16)}
    found, expected = (run(open_session(in_float32(each.model)), probe)["y"] for each in (result, wide))
    assert np.abs(found - expected).max() < (0.03 if kind == "bfloat16" else 4e-3) * np.abs(expected).max()


def test_bfloat16_is_factorised() -> None:
    result = factorise(_network("bfloat16", "ends"), {"x": _images()}, Options(Target("macs", 0.8), threads=1))
    assert {t.data_type for t in result.model.graph.initializer} == {TensorProto.BFLOAT16}


@pytest.mark.parametrize("style", STYLES)
def test_bfloat16_is_not_timed_as_something_else(style: str) -> None:
    model = _network("bfloat16", style)
    feeds = {"x": _images(1)}
    with pytest.raises(ModelError, match="can be timed, found one that computes in bfloat16") as caught:
        bench([model], feeds, runs=1)
    assert "\n" not in str(caught.value)


def test_the_command_line_prunes_and_compares_bfloat16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, data = tmp_path / "m.onnx", tmp_path / "p.onnx", tmp_path / "x.npz"
    onnx.save(_network("bfloat16", "whole"), model)
    np.savez(data, x=_images())
    assert cli(["inspect", str(model)]) == 0
    assert cli(["prune", str(model), str(out), "--calib", str(data), "--target", "macs=0.6", "-q"]) == 0
    assert cli(["eval", str(model), str(out), "--metric", "fidelity", "--data", str(data)]) == 0
    assert cli(["bench", str(model), "--runs", "1"]) == 1
    assert "computes in bfloat16" in capsys.readouterr().err
