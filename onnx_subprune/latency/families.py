"""Kinds of work that kernels are written for: each has widths that it likes."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure import DEFAULT_DOMAINS, Group

__all__ = ["FAMILIES", "WORK", "families_of", "family_of"]

FAMILIES = ("conv", "pointwise", "depthwise", "matmul")
"""Conv with a kernel, Conv of one position, Conv of single channels, products of matrices."""

WORK = "matmul"
_CONVS = ("Conv", "FusedConv")
_PRODUCTS = (
    *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "ConvTranspose"),
    *("Attention", "MultiHeadAttention", "GroupQueryAttention", "LSTM", "GRU", "RNN"),
)


def family_of(node: gs.Node) -> str | None:
    """Return the kind of work that a node does; None where its time does not depend on channels in steps.

    Args:
        node: of the graph; the shape of its weight tells the kinds of Conv apart.

    Returns:
        "conv", "depthwise", "pointwise" or "matmul".

    """
    if node.op in _CONVS and node.domain in (*DEFAULT_DOMAINS, "com.microsoft"):
        shape = node.inputs[1].shape
        if shape is None:
            return "conv"
        if shape[1] == 1 and int(node.attrs.get("group", 1)) > 1:
            return "depthwise"
        return "pointwise" if all(size == 1 for size in shape[2:]) else "conv"
    return "matmul" if node.op in _PRODUCTS else None


def families_of(group: Group) -> frozenset[str]:
    """Return the kinds of work that make, carry and read the units of a group.

    Args:
        group: any, prunable or not.

    """
    nodes = [use.node for use in (*group.producers, *group.carriers)]
    nodes += [consumer.node for consumer in group.consumers]
    nodes += [contraction.node for contraction in group.contractions]
    return frozenset(family for node in nodes if (family := family_of(node)) is not None)
