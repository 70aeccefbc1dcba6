"""What was found and done, as data: the `--json` document and the report, as JSON and as a page.

The same run writes the same bytes: no time, no machine, no order that depends on hashing. What was timed is there only
where it was asked for: under `timing`, and under `latency` where that was the target. A number that JSON does not have
(infinity, NaN) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnx_subprune.report.document_parts import fit_as_dict, group_as_dict, groups_as_dicts, measured_as_dict, operators
from onnx_subprune.report.environment import versions

if TYPE_CHECKING:
    from onnx_subprune.calibration import Statistics
    from onnx_subprune.evaluate.comparison import Measured
    from onnx_subprune.factorisation.low_rank_pipeline import Factorisation
    from onnx_subprune.model import Cost
    from onnx_subprune.pipeline import Analysis, Result
    from onnx_subprune.structure import Group

__all__ = ["Document", "analysis_as_dict", "as_dict", "factorisation_as_dict", "to_json"]

Document = dict[str, Any]


def as_dict(
    result: Result, *, measured: Measured | None = None, command: Sequence[str] = (), source: str | None = None
) -> Document:
    """Return everything there is to say about a pruning as plain data.

    Args:
        result: of `prune` or `apply`.
        measured: the dense and the pruned model side by side, where that was asked for.
        command: how it was asked for, as words.
        source: where the calibration data or statistics came from.

    """
    structure = result.analysis.structure
    return {
        "format": "onnx_subprune.report/1",
        "versions": versions(),
        "command": list(command),
        "target": result.plan.target,
        "select": result.plan.options.select,
        "recovery": result.plan.options.recovery,
        "ridge": result.plan.options.ridge,
        "options": {**result.options.document(), "target": result.plan.target},
        "fingerprint": result.plan.fingerprint,
        "input_shapes": _lists(result.analysis.input_shapes),
        "dense": asdict(result.dense),
        "pruned": asdict(result.pruned),
        "operators": {"dense": operators(result.analysis.model), "pruned": operators(result.model)},
        "losses_at": result.losses_at if any(curve.loss is not None for curve in result.curves) else None,
        "groups": groups_as_dicts(result),
        "frozen": [_frozen(group) for group in structure.frozen],
        "calibration": _calibration(result.statistics, source, held_out=_held_out(result)),
        "errors": dict(result.errors),
        "fit": fit_as_dict(result.fit),
        "latency": None if result.latency is None else asdict(result.latency),
        **({} if result.drop is None else {"drop": asdict(result.drop)}),
        "warnings": list(result.warnings),
        **({} if measured is None else measured_as_dict(measured)),
    }


def factorisation_as_dict(result: Factorisation, *, command: Sequence[str] = (), source: str | None = None) -> Document:
    """Return everything there is to say about a factorisation as plain data; arguments as for `as_dict`."""
    return {
        "format": "onnx_subprune.factorise/1",
        "versions": versions(),
        "command": list(command),
        "target": str(result.target),
        "fingerprint": result.analysis.fingerprint,
        "input_shapes": _lists(result.analysis.input_shapes),
        "dense": asdict(result.dense),
        "pruned": asdict(result.pruned),
        "layers": [{**asdict(layer), "macs_kept": layer.macs_kept} for layer in result.layers],
        "left": dict(result.left),
        "calibration": _calibration(result.statistics, source),
        "warnings": list(result.warnings),
    }


def analysis_as_dict(analysis: Analysis, dense: Cost, shares: Mapping[str, float]) -> Document:
    """Return what can be pruned and what cannot as plain data.

    Args:
        analysis: of the model.
        dense: what it costs.
        shares: of `macs` and `parameters` that touch a prunable group, in [0, 1].

    """
    structure = analysis.structure
    return {
        "format": "onnx_subprune.inspect/1",
        "versions": versions(),
        "fingerprint": analysis.fingerprint,
        "input_shapes": _lists(analysis.input_shapes),
        "dense": asdict(dense),
        "prunable_share": dict(shares),
        "groups": [group_as_dict(group) for group in structure.prunable],
        "frozen": [_frozen(group) for group in structure.frozen],
    }


def to_json(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text that ends in a newline."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _frozen(group: Group) -> Document:
    return {"name": group.name, "units": group.size, "macs": group.macs, "reasons": list(group.reasons)}


def _calibration(statistics: Statistics | None, source: str | None, **more: Any) -> Document | None:
    if statistics is None:
        return None
    return {"source": source, "samples": statistics.samples, "taps": len(statistics.grams), **more}


def _held_out(result: Result) -> int | None:
    """Return one in how many samples choices were made on that nothing was fitted to; None where none were."""
    from onnx_subprune.calibration import HELD  # noqa: PLC0415  (`versions` must work where no runtime is installed)

    return HELD if result.fit is not None or (result.curves and result.losses_at == "outputs") else None


def _lists(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
