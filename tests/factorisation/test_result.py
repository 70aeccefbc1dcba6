"""A factorisation as data, and as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune import Factorisation, Options, OutputError, Target, factorise, load_model


@pytest.fixture(scope="module")
def result() -> Factorisation:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,24] x) => (float[N,6] y) {
            [a] a = MatMul(x, w1) b = Relu(a) [b] y = MatMul(b, w2)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (24, 12), "w2": (12, 6)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    samples = {"x": rng.standard_normal((100, 24)).astype(np.float32)}
    return factorise(model, samples, Options(target=Target("macs", 0.6), ignore=("b",), threads=1))


def test_the_document_says_what_became_of_every_layer(result: Factorisation) -> None:
    document = result.document(command=["factorise", "m.onnx"], source="calib.npz")
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == "onnx_subprune.factorise/1"
    assert (document["target"], document["command"]) == ("macs=0.6", ["factorise", "m.onnx"])
    (layer,) = document["layers"]
    assert (layer["name"], layer["macs_kept"]) == ("a", layer["rank"] * 36)
    assert document["left"] == {"b": "--ignore or --only"}
    assert document["calibration"] == {"source": "calib.npz", "samples": 100, "taps": 1}
    assert document["operators"]["pruned"]["MatMul"] == document["operators"]["dense"]["MatMul"] + 1
    assert document["warnings"] == ["'a' was factorised on 100 rows for 12 features, where at least 192 are advised; "
                                    "use more samples"]  # fmt: skip


def test_a_model_is_saved_or_no_file_is_there(result: Factorisation, tmp_path: Path) -> None:
    result.save(tmp_path / "model.onnx")
    assert load_model(tmp_path / "model.onnx") == result.model
    with pytest.raises(OutputError):
        replace(result).save(tmp_path / "missing" / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
