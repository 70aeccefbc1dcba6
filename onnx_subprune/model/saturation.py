"""Operators that saturate or compare, and the tensors before them.

Where a Sigmoid, a Softmax or a Tanh saturates, a rounding error is as large as the value; the result of a Greater, an
Equal or a Less is no number. Networks are compared before both, also where operators that only move values about, or
choose the largest, stand behind them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

__all__ = ["Replaced", "before_saturation"]

Replaced = Mapping[str, tuple[str, str]]
"""By the output of an If: the tensor that holds what its branches saturate, and the reason to compare there."""

_SATURATING = ("HardSigmoid", "Sigmoid", "Softmax", "Tanh")
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual")
_MOVING = (
    "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu",
    "Unsqueeze",
)  # fmt: skip
# What they give is one of the values that they read: as small where those saturate as the values themselves.
_CHOOSING = ("GlobalMaxPool", "Max", "MaxPool", "Min", "ReduceMax", "ReduceMin", "TopK")
# All that these read is moved, not the first input alone.
_JOINING = ("And", "Concat", "Or", "Xor")


def before_saturation(
    name: str, makers: Mapping[str, onnx.NodeProto], varying: Collection[str], branches: Replaced
) -> dict[str, str]:
    """Return the tensors before the operators that saturate or compare, where a tensor is moved about from such.

    Of a Concat, some parts may come from such operators and some not: the latter stand for themselves.

    Args:
        name: of the tensor.
        makers: the nodes by the names of their outputs.
        varying: names of the tensors that may differ between two networks.
        branches: what stands for the outputs of Ifs whose branches saturate.

    Returns:
        A reason for each tensor; none where no such operator is behind.

    """
    stopped: dict[str, str] = {}
    plain: dict[str, str] = {}
    pending, seen = [(name, "beside a saturating operator")], {name}
    compares = False
    while pending:
        tensor, reason = pending.pop()
        if tensor in branches:
            stopped.update([branches[tensor]])
            continue
        node = makers.get(tensor)
        source = node.input[0] if node is not None and node.input else ""
        if node is not None and node.op_type in _SATURATING and source in makers and source in varying:
            stopped[source] = f"{node.op_type} '{node.name or tensor}' saturates behind it"
            continue
        chosen = {} if node is None else _before_choice(node, tensor, makers, varying, branches)
        if chosen:
            stopped.update(chosen)
            continue
        moved = [] if node is None else [each for each in _moved_by(node, varying) if each in varying]
        if node is not None and moved and node.op_type in _COMPARING:
            compares, reason = True, f"{node.op_type} '{node.name or tensor}' compares it"
        if not moved:
            plain[tensor] = reason
        for each in reversed(moved):
            if each not in seen:
                seen.add(each)
                pending.append((each, reason))
    if not stopped and not compares:
        return {}
    return {**stopped, **{tensor: why for tensor, why in plain.items() if tensor in varying}}


def _before_choice(
    node: onnx.NodeProto,
    tensor: str,
    makers: Mapping[str, onnx.NodeProto],
    varying: Collection[str],
    branches: Replaced,
) -> dict[str, str]:
    """Return what stands for the values among which a node chooses; nothing where one of its inputs saturates not."""
    if node.op_type not in _CHOOSING or tensor != node.output[0]:
        return {}
    reads = [name for name in (node.input if node.op_type in ("Max", "Min") else node.input[:1]) if name in varying]
    before = [before_saturation(name, makers, varying, branches) for name in reads]
    return {name: reason for each in before for name, reason in each.items()} if all(before) else {}


def _moved_by(node: onnx.NodeProto, varying: Collection[str]) -> Sequence[str]:
    """Return what a node moves about, or compares; nothing where it computes."""
    if node.op_type in (*_COMPARING, *_JOINING):
        return node.input
    if node.op_type == "Where":
        # Of two constants, it is the condition in other words.
        return () if any(name in varying for name in node.input[1:]) else node.input[:1]
    return node.input[:1] if node.op_type in (*_MOVING, "Not") else ()
