"""What can be pruned and what cannot as plain data, for documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from onnx_subprune import report
from onnx_subprune.model import Cost
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.structure import Group

__all__ = ["analysis_document", "frozen_document", "group_document"]


def analysis_document(analysis: Analysis, dense: Cost, shares: Mapping[str, float]) -> dict[str, Any]:
    """Return what can be pruned and what cannot as plain data.

    Args:
        analysis: of the model.
        dense: what it costs.
        shares: of `macs` and `parameters` that touch a prunable group, in [0, 1].

    """
    structure = analysis.structure
    return {
        "format": "onnx_subprune.inspect/1",
        "versions": report.versions(),
        "fingerprint": analysis.fingerprint,
        "input_shapes": {name: list(shape) for name, shape in analysis.input_shapes.items()},
        "dense": asdict(dense),
        "prunable_share": dict(shares),
        "groups": [group_document(group) for group in structure.prunable],
        "frozen": [frozen_document(group) for group in structure.frozen],
    }


def group_document(group: Group) -> dict[str, Any]:
    """Return a group as plain data, pruned or not; `contractions` are products of two activations that read it."""
    return {
        "name": group.name,
        "units": group.size,
        "producers": [use.node.name for use in group.producers],
        "consumers": [consumer.name for consumer in group.consumers],
        "macs": group.macs,
        "removable": group.removable,
        "contractions": [contraction.name for contraction in group.contractions],
    }


def frozen_document(group: Group) -> dict[str, Any]:
    """Return a group that cannot be pruned as plain data, with its reasons."""
    return {"name": group.name, "units": group.size, "macs": group.macs, "reasons": list(group.reasons)}
