"""Groups as plain data, for documents: what can be pruned, what cannot, and the rules that failed to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onnx_subprune.model.decisions import Comparisons
from onnx_subprune.structure import Group, Structure

__all__ = ["comparisons_document", "frozen_document", "group_document", "notices_document"]


def group_document(group: Group) -> dict[str, Any]:
    """Return a group as plain data, pruned or not; `contractions` are products of two activations that read it.

    Args:
        group: that can be pruned.

    """
    return {
        "name": group.name,
        "units": group.size,
        "producers": [use.node.name for use in group.producers],
        "consumers": [consumer.name for consumer in group.consumers],
        "macs": group.macs,
        "removable": group.removable,
        "contractions": [contraction.name for contraction in group.contractions],
        **_module(group),
    }


def frozen_document(group: Group) -> dict[str, Any]:
    """Return a group that cannot be pruned as plain data, with its reasons.

    Args:
        group: that is frozen.

    """
    return {
        "name": group.name, "units": group.size, "macs": group.macs, "reasons": list(group.reasons), **_module(group),
    }  # fmt: skip


def _module(group: Group) -> dict[str, str]:
    """Return the `module` that a group comes from; nothing where the model does not say."""
    return {} if group.module is None else {"module": group.module}


def notices_document(structure: Structure, refusals: Sequence[str], forms: Sequence[str]) -> dict[str, Any]:
    """Return everything that may cost pruning and is no property of the network; nothing where there is nothing.

    Args:
        structure: its `rule_errors` are bugs in operator rules, which froze axes.
        refusals: of normalising passes that were left out, each with the reason.
        forms: of the file that keep layers from being pruned, a line each.

    """
    notices = {
        "forms": list(forms),
        "rule_errors": [asdict(error) for error in structure.rule_errors],
        "refusals": list(refusals),
    }
    return {name: entries for name, entries in notices.items() if entries}


def comparisons_document(comparisons: Comparisons) -> dict[str, Any]:
    """Return `compared_at`, where networks are compared; nothing where that is at the outputs themselves."""
    points = [asdict(point) for point in comparisons.points]
    return {"compared_at": points} if any(point["reason"] is not None for point in points) else {}
