"""Where networks run is one value."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import SubpruneError
from onnx_subprune.model import Runtime, run


def negation() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    )


def test_a_session_runs_on_the_providers_that_are_named() -> None:
    session = Runtime(providers=("cpu",), threads=1).session(negation())
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1
    assert run(session, {"x": np.array([1, -2], np.float32)})["y"].tolist() == [-1, 2]


def test_a_provider_that_is_not_there_is_refused() -> None:
    with pytest.raises(SubpruneError, match="nowhere"):
        Runtime(providers=("nowhere",)).session(negation())
