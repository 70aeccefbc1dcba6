"""The cost of networks as they are written, against the target: the structure knows most of it, and not all.

A pruned network has biases that the dense one has not, and keeps what cannot be pruned; whether a target was reached is
decided by what the network itself costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from onnx_subprune.errors import TargetError
from onnx_subprune.model import Cost
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.finishing import finish
from onnx_subprune.network.rewrite import pruned_bare
from onnx_subprune.options import Options, Target

__all__ = ["TOLERANCE", "Shared", "check_reached", "share_of", "within_measured"]

TOLERANCE = 1e-3
"""A target of MACs or parameters counts as reached within this share of the dense network."""

_COSTS: Mapping[str, Callable[[Cost], int]] = {
    "macs": lambda cost: cost.macs,
    "params": lambda cost: cost.parameters,
}
_CORRECTIONS = 5
_LEAST = 1e-9

Allocate: TypeAlias = Callable[[Target], tuple[dict[str, int], list[str]]]


class Shared(NamedTuple):
    """A target that was shared out.

    Attributes:
        widths: the units that groups keep, by name.
        warnings: for the user.
        limit: share of the cost that the widths were found with.

    """

    widths: dict[str, int]
    warnings: list[str]
    limit: float


def share_of(target: Target, dense: Cost, pruned: Cost) -> float | None:
    """Return the share of the target's kind of cost that is left; None where the target is not one of a cost.

    Args:
        target: whose kind of cost is counted.
        dense: of the dense network.
        pruned: of the pruned one.

    """
    cost = _COSTS.get(target.kind)
    return None if cost is None else cost(pruned) / max(cost(dense), 1)


def check_reached(target: Target, dense: Cost, pruned: Cost, *, removes: bool) -> None:
    """Refuse a finished network that does not meet its target.

    Args:
        target: that was asked for.
        dense: cost of the dense network.
        pruned: of the finished one.
        removes: whether anything was removed.

    Raises:
        TargetError: it costs more; `nearest` is what it costs.

    """
    share = share_of(target, dense, pruned)
    if share is not None and share > target.value + TOLERANCE:
        raise _out_of_reach(target, share)
    if target.kind == "units" and target.value < 1.0 and not removes:
        raise TargetError(
            f"expected to reach {target}, but no unit can go: no group is chosen, or widths are rounded to more than "
            "the groups have; ask for units=1, or a smaller --round-to",
            1.0,
        )


def within_measured(allocate: Allocate, analysis: Analysis, options: Options) -> Shared:
    """Find widths whose network meets a target of MACs or parameters as it is written.

    The limit that widths are shared out by is lowered by what the network is found to cost above it. Other targets are
    met by construction.

    Args:
        allocate: returns the units that groups keep for a target, and warnings.
        analysis: of the dense network.
        options: the target, and whether recovery adds biases.

    Raises:
        TargetError: no widths meet it; `nearest` is what the smallest network costs.

    """
    target = options.target
    if target.kind not in _COSTS or target.value >= 1.0 or (target.kind == "macs" and _is_exact(analysis)):
        return Shared(*allocate(target), target.value)
    limit, share = target.value, math.inf
    for _ in range(_CORRECTIONS):
        last = False
        try:
            widths, warnings = allocate(Target(target.kind, limit))
        except TargetError as error:
            # What the structure takes for the smallest network may still be given biases.
            limit, last = min(error.nearest, 1.0), True
            widths, warnings = allocate(Target(target.kind, limit))
        share = _written_share(analysis, options, widths)
        if share <= target.value + TOLERANCE:
            return Shared(widths, warnings, limit)
        if last:
            break
        limit = max(limit - (share - target.value), _LEAST)
    raise _out_of_reach(target, share)


def _is_exact(analysis: Analysis) -> bool:
    """Whether the structure knows the MACs of the whole network: then it knows those of every smaller one."""
    return analysis.structure.macs({}) == analysis.cost.macs


def _written_share(analysis: Analysis, options: Options, widths: Mapping[str, int]) -> float:
    """Return the share of its cost that the dense network is left with at these widths."""
    model = finish(pruned_bare(analysis, widths, biased=options.recovery != "none"), analysis)
    share = share_of(options.target, analysis.cost, analysis.measure_cost(model))
    assert share is not None
    return share


def _out_of_reach(target: Target, share: float) -> TargetError:
    nearest = min(math.ceil(share * 1e4) / 1e4, 1.0)
    return TargetError(
        f"expected to reach {target}, but the smallest network that was found has {nearest:.4f} of the {target.kind}; "
        f"ask for {target.kind}={nearest:.4f} or more",
        nearest,
    )
