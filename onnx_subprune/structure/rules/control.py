"""If, Loop and Scan: nothing is pruned in their bodies, nor what the bodies touch; the rest of the graph goes on.

An If whose condition is known has been inlined before (`passes.InlineBranches`).
"""

from __future__ import annotations

from typing import NoReturn

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["RULES"]

_DOES = {
    "If": "chooses between two bodies at run time",
    "Loop": "repeats a body",
    "Scan": "repeats a body",
    "SequenceMap": "repeats a body",
}


def refuse(node: gs.Node, _: Context) -> NoReturn:
    """Raise NotUnderstood."""
    raise NotUnderstood(f"{label(node)} {_DOES[node.op]}")


RULES = dict.fromkeys(_DOES, refuse)
