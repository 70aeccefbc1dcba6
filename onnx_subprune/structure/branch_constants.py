"""How operators treat short tensors: constants with one entry where the graph says more.

Flags say of every axis whether it is short. Elementwise operators broadcast, so a short axis is full again behind an
operand that surely has all its entries; operators that treat the positions of an axis alike pass short axes on. All
others refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim
from onnx_subprune.structure.context import NotUnderstood
from onnx_subprune.structure.records import DEFAULT_DOMAINS, Records, label
from onnx_subprune.structure.rules.elementwise import UNARY, VARIADIC

__all__ = ["Flags", "is_one", "shorten"]

Flags = tuple[bool, ...]
_Rule = Callable[[gs.Node, list[Flags], Records], Flags]

# Before it, some elementwise operators took operands of equal shapes only.
_BROADCASTING = 8


def is_one(dim: Dim) -> bool:
    """Whether an axis has one entry, whatever is run."""
    return dim.size == 1 and not dim.dynamic


def shorten(node: gs.Node, short: Mapping[str, Flags], records: Records) -> Iterator[tuple[gs.Tensor, Flags]]:
    """Yield the outputs of a node that reads short tensors, with their flags; NotUnderstood where it must not."""
    rule = _RULES.get(node.op) if node.domain in DEFAULT_DOMAINS and records.opset >= _BROADCASTING else None
    if rule is None:
        raise NotUnderstood(f"{label(node)} would read a constant of one entry in the place of a whole axis")
    flags = [short.get(tensor.name, (False,) * len(_axes(node, i, records))) for i, tensor in enumerate(node.inputs)]
    for tensor in node.outputs:
        if tensor.name:
            yield tensor, rule(node, flags, records)


def _axes(node: gs.Node, index: int, records: Records) -> tuple[Dim, ...]:
    tensor = node.inputs[index]
    own = records.own_axes(node, index)
    if own is not None:
        return own
    return records.tied[tensor.name][1] if tensor.name in records.tied else records.axes.get(tensor.name, ())


def _require(holds: bool, node: gs.Node) -> None:
    if not holds:
        raise NotUnderstood(f"{label(node)} needs every entry of an axis that a constant would stand for")


def _same(_: gs.Node, flags: list[Flags], records: Records) -> Flags:  # noqa: ARG001 - all rules take the records
    return flags[0]


def _broadcast(node: gs.Node, flags: list[Flags], records: Records) -> Flags:
    """An axis is full where an operand that is not short has the axis of the output."""
    out = [dim.resolve() for dim in records.axes[node.outputs[0].name]]
    full = [is_one(dim) for dim in out]
    for index, own in enumerate(flags):
        axes = _axes(node, index, records)
        for place, (dim, is_short) in enumerate(zip(axes, own, strict=True), len(out) - len(axes)):
            full[place] |= not is_short and dim.resolve() == out[place]
    return tuple(not known for known in full)


def _slope(node: gs.Node, flags: list[Flags], records: Records) -> Flags:
    """PRelu: the slope is broadcast to the data, never the other way."""
    slope = _axes(node, 1, records)
    for dim, is_short in zip(reversed(slope), reversed(flags[0]), strict=False):
        _require(not is_short or is_one(dim), node)
    return flags[0]


def _per_channel(node: gs.Node, flags: list[Flags], records: Records) -> Flags:  # noqa: ARG001
    _require(not flags[0][1], node)
    return flags[0]


def _pooled(_: gs.Node, flags: list[Flags], records: Records) -> Flags:  # noqa: ARG001
    """The mean of equal entries is the entry."""
    return (*flags[0][:2], *(False for _ in flags[0][2:]))


def _permuted(node: gs.Node, flags: list[Flags], records: Records) -> Flags:  # noqa: ARG001
    order = node.attrs.get("perm") or range(len(flags[0]))[::-1]
    return tuple(flags[0][i] for i in order)


def _conv(node: gs.Node, flags: list[Flags], records: Records) -> Flags:
    """A kernel of one tap sees each position alone; others need all of them."""
    kernel = records.weight(node, 1)
    alone = kernel is not None and all(is_one(dim) for dim in kernel[1][2:])
    unpadded = not any(node.attrs.get("pads", ())) and str(node.attrs.get("auto_pad", "NOTSET")) in ("NOTSET", "VALID")
    _require(not flags[0][1] and (not any(flags[0][2:]) or (alone and unpadded)), node)
    return (flags[0][0], False, *flags[0][2:])


def _gemm(node: gs.Node, flags: list[Flags], records: Records) -> Flags:
    """Rows may be few where the bias is the same for all of them."""
    bias = _axes(node, 2, records) if records.has(node, 2) else ()
    alike = len(bias) < 2 or is_one(bias[0])
    _require(not node.attrs.get("transA") and not flags[0][1] and not any(map(any, flags[1:])) and alike, node)
    return (flags[0][0], False)


def _matmul(node: gs.Node, flags: list[Flags], records: Records) -> Flags:
    weight = records.weight(node, 1)
    _require(weight is not None and len(weight[1]) == 2 and not flags[0][-1], node)
    return (*flags[0][:-1], False)


_RULES: dict[str, _Rule] = {
    **dict.fromkeys((*UNARY, "Dropout"), _same),
    **dict.fromkeys(VARIADIC, _broadcast),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _pooled),
    "PRelu": _slope,
    "BatchNormalization": _per_channel,
    "Transpose": _permuted,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
