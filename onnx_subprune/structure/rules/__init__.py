"""Operator rules, a file per family. `RULES` maps (domain, operator) to its rule; one that is not listed is a barrier.

ONNX's own operators have the domain "", those that ONNX Runtime adds "com.microsoft". A family lists them by operator
alone: `RULES` those of ONNX, `CONTRIB` those of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.records import DEFAULT_DOMAINS
from onnx_subprune.structure.rules import (
    attention,
    contrib,
    control,
    creation,
    cutting,
    elementwise,
    indexing,
    linear,
    matrix,
    movement,
    normalisation,
    quantised,
    recurrent,
    reduction,
    reshape,
    sampling,
    signal,
    spatial,
)
from onnx_subprune.structure.rules.shapes import SHAPE_RULES

__all__ = ["RULES", "SHAPE_RULES", "rule_of"]

Rule = Callable[[gs.Node, Context], None]

_ONNX: dict[str, Rule] = {
    **control.RULES,
    **attention.RULES,
    **contrib.RULES,
    **creation.RULES,
    **cutting.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **linear.RULES,
    **matrix.RULES,
    **movement.RULES,
    **normalisation.RULES,
    **quantised.RULES,
    **recurrent.RULES,
    **reduction.RULES,
    **reshape.RULES,
    **sampling.RULES,
    **signal.RULES,
    **spatial.RULES,
}

_CONTRIB: dict[str, Rule] = {
    **attention.CONTRIB,
    **contrib.CONTRIB,
    **creation.CONTRIB,
    **cutting.CONTRIB,
    **indexing.CONTRIB,
    **linear.CONTRIB,
    **matrix.CONTRIB,
    **movement.CONTRIB,
    **normalisation.CONTRIB,
    **quantised.CONTRIB,
    **sampling.CONTRIB,
    **spatial.CONTRIB,
}

RULES: dict[tuple[str, str], Rule] = {
    **{("", op): rule for op, rule in _ONNX.items()},
    **{("com.microsoft", op): rule for op, rule in _CONTRIB.items()},
}


def rule_of(node: gs.Node) -> Rule | None:
    """Return the rule of a node's operator; None where there is none.

    Args:
        node: of the graph; its domain and operator are looked up in `RULES`.

    """
    domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
    return RULES.get((domain, node.op))
