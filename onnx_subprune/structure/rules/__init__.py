"""Operator rules, a file per family. `RULES` maps an ONNX operator to its rule; one that is not listed is a barrier."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.rules import (
    creation,
    cutting,
    elementwise,
    linear,
    movement,
    normalisation,
    reduction,
    reshape,
    spatial,
)
from onnx_subprune.structure.rules.shapes import SHAPE_RULES

__all__ = ["RULES", "SHAPE_RULES"]

RULES: dict[str, Callable[[gs.Node, Context], None]] = {
    **creation.RULES,
    **cutting.RULES,
    **elementwise.RULES,
    **linear.RULES,
    **movement.RULES,
    **normalisation.RULES,
    **reduction.RULES,
    **reshape.RULES,
    **spatial.RULES,
}
