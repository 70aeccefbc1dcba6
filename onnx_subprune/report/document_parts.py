"""The parts of the document on a pruning: its groups with what they lose, the fits of layers, and what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from onnx_subprune.budget import Curve
    from onnx_subprune.evaluate import Profile
    from onnx_subprune.evaluate.comparison import Measured, Timing
    from onnx_subprune.pipeline import Result
    from onnx_subprune.recovery.exact import Refit
    from onnx_subprune.structure import Group

__all__ = ["fit_as_dict", "group_as_dict", "groups_as_dicts", "measured_as_dict", "operators"]

# A curve is drawn a few centimetres wide.
_POINTS = 33
_DIGITS = 6


def group_as_dict(group: Group) -> dict[str, Any]:
    """Return what a group is, pruned or not."""
    return {
        "name": group.name,
        "units": group.size,
        "producers": [use.node.name for use in group.producers],
        "consumers": [consumer.name for consumer in group.consumers],
        "macs": group.macs,
        "removable": group.removable,
    }


def groups_as_dicts(result: Result) -> list[dict[str, Any]]:
    """Return every prunable group: what it is, what stays of it, and what it loses.

    `macs` and `macs_kept` are those of the nodes that make or read the group, so that a node counts in several groups.
    `loss` is at the chosen width, None where none was computed; `curve` holds some of the widths, the chosen among
    them, with the loss and the share of variance at each.
    """
    structure = result.analysis.structure
    kept = {group.name: len(group.kept) for group in result.plan.groups}
    gone = [name for name, count in kept.items() if not count]
    counts = {group.atom: kept[group.name] for group in structure.prunable}
    macs = structure.macs_touched(counts, structure.removal(gone) if gone else None)
    curves = {curve.group: curve for curve in result.curves}
    return [
        {
            **group_as_dict(group),
            "kept": kept[group.name],
            "kept_share": kept[group.name] / group.size,
            "macs_kept": macs.get(group.atom, 0),
            **_losses(curves.get(group.name), kept[group.name]),
        }
        for group in structure.prunable
    ]


def _losses(curve: Curve | None, kept: int) -> dict[str, Any]:
    if curve is None:
        return {"loss": None, "variance": None, "curve": None}
    points = sorted({*np.linspace(0, curve.size, min(_POINTS, curve.size + 1)).round().astype(int).tolist(), kept})
    return {
        "loss": None if curve.loss is None else _short(curve.loss[kept]),
        "variance": _short(curve.share[kept]),
        "curve": {
            "kept": points,
            "loss": None if curve.loss is None else [_short(curve.loss[count]) for count in points],
            "variance": [_short(curve.share[count]) for count in points],
        },
    }


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def fit_as_dict(fit: Refit | None) -> dict[str, Any] | None:
    """Return what came of the layers that were fitted to the dense network, and why others were left."""
    if fit is None:
        return None
    return {"layers": [asdict(layer) for layer in fit.layers], "left": dict(fit.left)}


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes of each operator the graph has."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def measured_as_dict(measured: Measured) -> dict[str, Any]:
    """Return what was measured: `fidelity`, `top1`, `timing`, and what could not be under `not_measured`."""
    found: dict[str, Any] = {}
    if measured.fidelity is not None:
        found["fidelity"] = asdict(measured.fidelity)
    if measured.top1 is not None:
        dense, pruned = measured.top1
        found["top1"] = {"source": measured.labelled, "dense": asdict(dense), "pruned": asdict(pruned)}
    if measured.timing is not None:
        found["timing"] = {**_timing(measured.timing), "warnings": list(measured.warnings)}
    if measured.left:
        found["not_measured"] = dict(measured.left)
    return found


def _timing(timing: Timing) -> dict[str, Any]:
    dense, pruned = timing.latency
    return {
        "inputs": timing.inputs,
        "input_shapes": {name: list(shape) for name, shape in timing.shapes.items()},
        "threads": timing.threads,
        "dense": asdict(dense),
        "pruned": asdict(pruned),
        "profile": {
            "runs": timing.profiles[0].runs,
            "dense_ms": 1e3 * timing.profiles[0].seconds,
            "pruned_ms": 1e3 * timing.profiles[1].seconds,
            "operators": _operators(timing.profiles),
        },
    }


def _operators(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """Return nodes and milliseconds of every operator in both models, those that cost most at first."""
    sides = [{(one.operator, one.provider): one for one in profile.operators} for profile in profiles]
    rows = []
    for operator, provider in dict.fromkeys(key for side in sides for key in side):
        found = [side.get((operator, provider)) for side in sides]
        row: dict[str, Any] = {"operator": operator, "provider": provider}
        for name, one in zip(("dense", "pruned"), found, strict=True):
            row[name] = {"nodes": 0 if one is None else one.nodes, "ms": 0.0 if one is None else 1e3 * one.seconds}
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["dense"]["ms"] - row["pruned"]["ms"], row["operator"], row["provider"]))
