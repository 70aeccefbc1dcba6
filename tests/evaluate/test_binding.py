from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError
from onnx_subprune.evaluate import binding
from onnx_subprune.evaluate.binding import device_of, runner
from onnx_subprune.model import open_session

# One output of a size that depends on the values, and one that is a sequence.
MODEL = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 2] x) => (float[N, 2] y, int64[2, k] found, seq(float[1, 2]) rows)
    {
        y = Mul(x, x)
        found = NonZero(x)
        rows = SplitToSequence(x)
    }
"""
FEEDS = {"x": np.array([[1, 0], [2, 3]], np.float32)}


def test_buffers_hold_what_a_run_gives():
    session = open_session(onnx.parser.parse_model(MODEL))
    assert device_of(session) == "cpu"
    bound = binding._bound(session, FEEDS)
    y, found, rows = bound.get_outputs()
    before = y.numpy().ctypes.data if y.device_name() == "cpu" else 0
    session.run_with_iobinding(bound)
    y, found, rows = bound.get_outputs()
    np.testing.assert_array_equal(y.numpy(), FEEDS["x"] ** 2)
    np.testing.assert_array_equal(found.numpy(), np.array(np.nonzero(FEEDS["x"])))
    assert not rows.is_tensor()
    assert before


@pytest.mark.parametrize("bound", [True, False, None])
def test_a_turn_runs_the_model(bound: bool | None):
    once = runner(open_session(onnx.parser.parse_model(MODEL)), FEEDS, bound=bound)
    once()
    once()


def test_feeds_that_do_not_fit_are_refused_before_the_first_turn():
    session = open_session(onnx.parser.parse_model(MODEL))
    with pytest.raises(DataError, match="do not fit"):
        runner(session, {"x": np.ones(3, np.float32)}, bound=True)
