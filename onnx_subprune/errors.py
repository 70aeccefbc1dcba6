"""Every error the package raises on purpose.

::

    SubpruneError
    ├── UserError          the input is at fault; exit code 1, one line, no traceback
    │   ├── ModelError     the ONNX file: missing, unreadable, invalid, not supported
    │   ├── DataError      the calibration or evaluation data: shapes, names, NaN, too few
    │   ├── OptionError    an option: unknown layer name, unknown method, impossible value
    │   ├── PlanError      a saved plan that does not fit the model it is applied to
    │   └── OutputError    the result cannot be written where it was asked for
    ├── TargetError        a valid target that this model cannot meet; exit code 3
    └── InternalError      a check of ours failed; a bug to report, exit code 1

A message is one line: the expectation, the finding, the remedy.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "InternalError",
    "ModelError",
    "OptionError",
    "OutputError",
    "PlanError",
    "SubpruneError",
    "TargetError",
    "UserError",
]


class SubpruneError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(SubpruneError):
    """The user's input is at fault."""


class ModelError(UserError):
    """The ONNX model is missing, unreadable, invalid or not supported."""


class DataError(UserError):
    """The calibration or evaluation data does not fit the model or the task."""


class OptionError(UserError):
    """An option has a value that cannot be used with this model."""


class PlanError(UserError):
    """A saved plan does not fit the model it is applied to."""


class OutputError(UserError):
    """The result cannot be written where it was asked for."""


class TargetError(SubpruneError):
    """The target cannot be met; `nearest` is the closest value that can.

    Args:
        message: one line for the user.
        nearest: the closest value that can be met, in the unit of the target.

    """

    exit_code = 3

    def __init__(self, message: str, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


class InternalError(SubpruneError):
    """A check of the program's own work failed: nothing was written. Please report it."""
