"""Where networks run is one value."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model.runtime import Runtime


def test_a_session_runs_on_the_providers_with_the_threads_of_the_value(model: onnx.ModelProto) -> None:
    session = Runtime(threads=1).session(model)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(OptionError, match="provider 'none' is not in this onnxruntime"):
        Runtime(("none",)).session(model)


def test_equal_values_are_equal() -> None:
    assert Runtime() == Runtime(("cpu",), None, 32)
    assert Runtime(batch_size=8) != Runtime()
