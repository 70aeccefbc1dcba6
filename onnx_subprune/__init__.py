"""Structured pruning of ONNX models with closed-form recovery.

The names below are the public API. They are imported when first used: the command line can name the fault with an
installation that lacks a runtime, and answers an interrupt before anything large is imported.

ONNX Runtime sends telemetry unless it is told not to before it is first imported. Here it is told not to; a user who
wants it sets ORT_DISABLE_TELEMETRY=0.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # that of `typing` would take the import of `typing`
if TYPE_CHECKING:
    from typing import Any

    from onnx_subprune.calibration import Statistics, open_data, open_tokens
    from onnx_subprune.demo import load_demo
    from onnx_subprune.errors import (
        DataError,
        InternalError,
        ModelError,
        OptionError,
        OutputError,
        PlanError,
        SubpruneError,
        TargetError,
        UserError,
    )
    from onnx_subprune.evaluate import bench, fidelity, perplexity, top1
    from onnx_subprune.factorisation import Factorisation, factorise
    from onnx_subprune.model import input_specs, load_model, register_custom_ops
    from onnx_subprune.options import Options, Target
    from onnx_subprune.pipeline import Analysis, Result, analyse, apply, calibrate, prune
    from onnx_subprune.plan import Plan
    from onnx_subprune.report import progress_bar

    __version__: str

__all__ = [
    "Analysis",
    "DataError",
    "Factorisation",
    "InternalError",
    "ModelError",
    "OptionError",
    "Options",
    "OutputError",
    "Plan",
    "PlanError",
    "Result",
    "Statistics",
    "SubpruneError",
    "Target",
    "TargetError",
    "UserError",
    "__version__",
    "analyse",
    "apply",
    "bench",
    "calibrate",
    "factorise",
    "fidelity",
    "input_specs",
    "load_demo",
    "load_model",
    "open_data",
    "open_tokens",
    "perplexity",
    "progress_bar",
    "prune",
    "register_custom_ops",
    "top1",
]

# Its function `disable_telemetry_events` comes too late: an identifier of the machine is written by then.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = (
    "errors",
    "options",
    "plan",
    "pipeline",
    "factorisation",
    "model",
    "calibration",
    "evaluate",
    "demo",
    "report",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib import metadata  # noqa: PLC0415

            return metadata.version("onnx-subprune")
        if name in __all__:
            from importlib import import_module  # noqa: PLC0415

            for path in _MODULES:
                module = import_module(f"{__name__}.{path}")
                if name in module.__all__:
                    return getattr(module, name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return __all__
