"""The last gate before a pruned model takes its name: ONNX's checker, ONNX Runtime, and the mask oracle.

A network shrunk without recovery computes what the dense network computes with the removed units masked where consumers
read them. If the two disagree, the structure was misread, and no model is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnx_subprune.errors import InternalError
from onnx_subprune.model import open_session, run

__all__ = ["relative_error", "verify"]

# Float32 rounding through a deep network; a unit removed wrongly shows at 1e-2 and above.
_TOLERANCE = 1e-3


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference over the largest absolute expected value (0 where both are empty)."""
    if found.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    a, b = found.astype(np.float64), expected.astype(np.float64)
    scale = float(np.abs(b).max()) or 1.0
    return float(np.abs(a - b).max()) / scale


def verify(
    model: onnx.ModelProto,
    shrunk: onnx.ModelProto,
    masked: onnx.ModelProto,
    probe: Mapping[str, np.ndarray],
) -> None:
    """Check a pruned model.

    Args:
        model: the result.
        shrunk: the same units removed, without recovery.
        masked: the dense model with the same units masked at their consumers.
        probe: a few inputs, the arrays by name.

    Raises:
        InternalError: a check failed.

    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        if not isinstance(error, ValueError) or "2GiB" not in str(error):
            reason = str(error).strip().splitlines()[0]
            raise InternalError(f"the pruned model is not valid ONNX: {reason}; please report this") from error
    expected = run(open_session(masked), probe)
    for name, value in run(open_session(shrunk), probe).items():
        distance = relative_error(value, expected[name])
        if not distance <= _TOLERANCE and np.isfinite(expected[name]).all():
            raise InternalError(
                f"output '{name}' of the shrunk model is off by {distance:.1e} from the masked one, expected below "
                f"{_TOLERANCE:g}; nothing was written, please report this"
            )
    for name, value in run(open_session(model), probe).items():
        if value.shape != expected[name].shape or (np.isfinite(expected[name]).all() and not np.isfinite(value).all()):
            raise InternalError(f"output '{name}' of the pruned model has another shape or NaN; please report this")
