"""Sessions are started where they were asked to run, or refused in one line."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.model.starting import started

CPU = ["CPUExecutionProvider"]


def _model(operator: str) -> bytes:
    text = f"""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N,3] x) => (float[N,3] y) {{ [node] y = {operator}(x) }}"""
    return onnx.parser.parse_model(text).SerializeToString()


def test_a_model_runs_where_it_was_asked_to() -> None:
    assert started(_model("Relu"), ort.SessionOptions(), CPU).get_providers() == CPU


def test_an_operator_that_nobody_knows_names_the_option_that_brings_it() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(ModelError, match=r"refuses the model: .*; if it is a custom operator, .*--custom-ops"):
        started(_model("own.Thing"), options, CPU)


def test_what_is_no_model_is_refused() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(ModelError, match="refuses the model"):
        started(b"not a model", options, CPU)
