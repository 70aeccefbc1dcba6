"""What was found and done, as data: the `--json` document and `report.json`.

The same run writes the same bytes: no time, no machine, no order that depends on hashing. A number that JSON does not
have (infinity, NaN) is null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_subprune.errors import OutputError
from onnx_subprune.report.environment import versions

if TYPE_CHECKING:
    from onnx_subprune.calibration import Statistics
    from onnx_subprune.factorisation import Factorisation
    from onnx_subprune.model import Cost
    from onnx_subprune.pipeline import Analysis, Result
    from onnx_subprune.structure import Group

__all__ = ["Document", "analysis_as_dict", "as_dict", "factorisation_as_dict", "to_json", "write_json"]

Document = dict[str, Any]


def as_dict(result: Result, *, command: Sequence[str] = (), source: str | None = None) -> Document:
    """Return everything there is to say about a pruning as plain data.

    Args:
        result: of `prune` or `apply`.
        command: how it was asked for, as words.
        source: where the calibration data or statistics came from.

    """
    kept = {group.name: len(group.kept) for group in result.plan.groups}
    structure = result.analysis.structure
    return {
        "format": "onnx_subprune.report/1",
        "versions": versions(),
        "command": list(command),
        "target": result.plan.target,
        "select": result.plan.select,
        "recovery": result.plan.recovery,
        "ridge": result.plan.ridge,
        "fingerprint": result.plan.fingerprint,
        "input_shapes": _lists(result.analysis.input_shapes),
        "dense": asdict(result.dense),
        "pruned": asdict(result.pruned),
        "groups": [{**_group(group), **_kept(kept[group.name], group.size)} for group in structure.prunable],
        "frozen": [_frozen(group) for group in structure.frozen],
        "calibration": _calibration(result.statistics, source),
        "errors": dict(result.errors),
        "warnings": list(result.warnings),
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
        "groups": [_group(group) for group in structure.prunable],
        "frozen": [_frozen(group) for group in structure.frozen],
    }


def to_json(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text that ends in a newline."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(document: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the document in one step; OutputError if that is not possible."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(to_json(document), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f"cannot write the report '{target}': {error.strerror}; give a path in a folder you can write to"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _group(group: Group) -> Document:
    return {
        "name": group.name,
        "units": group.size,
        "producers": [use.node.name for use in group.producers],
        "consumers": [consumer.name for consumer in group.consumers],
        "macs": group.macs,
        "removable": group.removable,
    }


def _kept(kept: int, size: int) -> Document:
    return {"kept": kept, "kept_share": kept / size}


def _frozen(group: Group) -> Document:
    return {"name": group.name, "units": group.size, "macs": group.macs, "reasons": list(group.reasons)}


def _calibration(statistics: Statistics | None, source: str | None) -> Document | None:
    if statistics is None:
        return None
    return {"source": source, "samples": statistics.samples, "taps": len(statistics.grams)}


def _lists(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
