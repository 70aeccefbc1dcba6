"""Take the statistics of normalisations over the units that stay: the oracle for normalised axes that shrink.

What the shrunk network computes is written with the whole tensors. A reduction reads its input with the removed units
set to zero, and a mean is multiplied by (all units) / (units that stay); one that takes the largest or the smallest
reads them as what is neither. An operator that takes its statistics inside is replaced by the same formula written out.
Only the network that others are compared with is edited so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import float_type, fresh_name, place_of
from onnx_subprune.structure import Atom, Dim, Statistic, Structure, keep_mask

__all__ = ["MaskStatistics"]

_REDUCE_TAKES_AXES_AS_INPUT = 18
_UNCENTRED = (
    "LpNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
)  # fmt: skip
# What is never the largest, or the smallest, entry.
_EXTREMES = {"ReduceMax": -np.inf, "ReduceMin": np.inf}
# The sums that ONNX Runtime normalises in one operator, and their inputs that are summed.
_SUMMED = {"SkipLayerNormalization": (0, 1, 4), "SkipSimplifiedLayerNormalization": (0, 1, 3)}


class MaskStatistics(Pass):
    """Leave removed units out of every mean, sum and spread that is taken over their axis.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size].

    """

    def __init__(self, structure: Structure, keeps: Mapping[Atom, np.ndarray]) -> None:
        self._structure = structure
        self._keeps = keeps

    def run(self, graph: gs.Graph) -> bool:
        """Rewrite every node that takes statistics over an axis with removed units."""
        modified = False
        for statistic in self._structure.records.statistics:
            masks = {axis: keep_mask(dim, self._keeps) for axis, dim in statistic.axes}
            # Of no units at all there are no statistics: what they are taken for is gone with its readers.
            if all(mask.any() for mask in masks.values()) and not all(mask.all() for mask in masks.values()):
                x = statistic.node.inputs[0]
                axes = self._structure.records.axes.get(x.name, x.shape)
                assert axes is not None
                _Rewriter(graph, statistic, masks, len(axes)).rewrite()
                modified = True
        return modified


class _Rewriter:
    """Writes nodes in the place of one; `masks` holds, for each axis of its statistics, which entries stay."""

    def __init__(self, graph: gs.Graph, statistic: Statistic, masks: Mapping[int, np.ndarray], rank: int) -> None:
        self._graph, self._node, self._rank = graph, statistic.node, rank
        self._x = self._node.inputs[0]
        self._axes = sorted(masks)
        self._dtype = float_type(self._x)
        self._made: list[gs.Node] = []
        for index in _SUMMED.get(self._node.op, ())[1:]:
            if index < len(self._node.inputs) and not self._node.inputs[index].is_empty():
                self._x = self._add("Add", self._x, self._node.inputs[index])
        self._kept = {axis: mask for axis, mask in masks.items() if not mask.all()}
        if self._node.op == "GroupNormalization" and 1 in self._kept:
            # Its statistic runs over one group's channels, which are the same in all groups.
            self._kept[1] = np.tile(self._kept[1], int(self._node.attrs["num_groups"]))
        share = np.prod([mask.mean() for mask in self._kept.values()])
        self._ratio = self._constant(np.array(1 / share))
        self._mask = self._whole_mask(dict(statistic.axes))

    def rewrite(self) -> None:
        """Put the new nodes before the node, or in its place."""
        node = self._node
        place = place_of(self._graph, node)
        if node.op.startswith("Reduce"):
            extreme = _EXTREMES.get(node.op)
            if extreme is None:
                node.inputs[0] = self._add("Mul", self._x, self._mask)
            else:
                stays = self._add("Cast", self._mask, dtype=np.bool_, to=onnx.TensorProto.BOOL)
                node.inputs[0] = self._add("Where", stays, self._x, self._constant(np.array(extreme)))
            self._graph.nodes[place:place] = self._made
            if node.op == "ReduceMean":
                self._scale_behind(place + len(self._made) + 1)
            return
        outputs = list(node.outputs)
        result = self._written_out()
        node.outputs.clear()
        node.inputs.clear()
        result.inputs[0].outputs[0] = outputs[0]
        if node.op in _SUMMED and len(outputs) > 3 and not outputs[3].is_empty():
            self._made.append(gs.Node("Identity", name=self._name("sum"), inputs=[self._x], outputs=[outputs[3]]))
        self._graph.nodes[place : place + 1] = self._made

    def _whole_mask(self, dims: Mapping[int, Dim]) -> gs.Tensor:
        """Return 1 where an entry stays, broadcasting to the input."""
        whole: gs.Tensor | None = None
        for axis, mask in self._kept.items():
            shape = [-1 if i == axis else 1 for i in range(self._rank)]
            positions = _positions(dims[axis])
            column = self._constant(mask[::positions].reshape(shape) if positions else mask.reshape(shape))
            part = self._repeated(column, axis, shape) if positions else column
            whole = part if whole is None else self._add("Mul", whole, part)
        assert whole is not None
        return whole

    def _repeated(self, mask: gs.Constant, axis: int, shape: list[int]) -> gs.Variable:
        """Repeat each entry of a mask for the positions that an axis holds behind it, as many as there are then."""
        size = self._add("Gather", self._shape(), self._integers(axis), dtype=np.int64)
        positions = self._add("Div", size, self._integers(mask.values.size), dtype=np.int64)
        column = self._constant(mask.values.reshape(-1, 1))
        ones = self._add("Concat", self._integers(1), positions, dtype=np.int64, axis=0)
        return self._add("Reshape", self._add("Expand", column, ones), self._integers(*shape))

    def _shape(self) -> gs.Variable:
        return self._add("Shape", self._x, dtype=np.int64)

    def _integers(self, *values: int) -> gs.Constant:
        return gs.Constant(self._name("integers"), np.array(values, np.int64))

    def _scale_behind(self, place: int) -> None:
        output = self._node.outputs[0]
        mean = gs.Variable(fresh_name(self._graph, f"{output.name}_zeroed"), dtype=output.dtype, shape=output.shape)
        self._node.outputs[0] = mean
        name = f"{mean.name}_scaled"
        self._graph.nodes.insert(place, gs.Node("Mul", name=name, inputs=[mean, self._ratio], outputs=[output]))

    def _written_out(self) -> gs.Variable:
        op = self._node.op
        if op == "GroupNormalization":
            return self._group_norm()
        x = self._x if op in _UNCENTRED else self._add("Sub", self._x, self._mean(self._x, self._mask, self._axes))
        if op == "LpNormalization":
            return self._add("Div", x, self._norm(x))
        n = self._divided(x, self._mean(self._add("Mul", x, x), self._mask, self._axes))
        if op == "InstanceNormalization":
            return self._scaled(n, [1, -1, *[1] * (self._rank - 2)])
        if op in _SUMMED:
            return self._scaled(n, parameters=self._node.inputs[2 : 4 if op == "SkipLayerNormalization" else 3])
        if op in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
            return self._scaled(n)
        raise InternalError(f"expected a normalisation that can be written out, found {op}; please report this")

    def _divided(self, x: gs.Tensor, square: gs.Tensor) -> gs.Variable:
        epsilon = self._constant(np.array(self._node.attrs.get("epsilon", 1e-5)))
        return self._add("Div", x, self._add("Sqrt", self._add("Add", square, epsilon)))

    def _norm(self, x: gs.Tensor) -> gs.Variable:
        """Return the sum of absolute values, or the root of the sum of squares, of the entries that stay."""
        norm = "ReduceL1" if int(self._node.attrs.get("p", 2)) == 1 else "ReduceL2"
        return self._reduce(norm, self._add("Mul", x, self._mask), self._axes)

    def _group_norm(self) -> gs.Variable:
        """Write GroupNormalization over [N, groups, channels of a group x positions]."""
        groups = int(self._node.attrs["num_groups"])
        shape, grouped = self._shape(), self._integers(0, groups, -1)
        mask = self._add("Reshape", self._add("Expand", self._mask, shape), grouped)
        x = self._add("Reshape", self._x, grouped)
        d = self._add("Sub", x, self._mean(x, mask, [2]))
        n = self._divided(d, self._mean(self._add("Mul", d, d), mask, [2]))
        return self._scaled(self._add("Reshape", n, shape), [1, -1, *[1] * (self._rank - 2)])

    def _scaled(
        self, n: gs.Variable, shape: list[int] | None = None, parameters: Sequence[gs.Tensor] | None = None
    ) -> gs.Variable:
        for op, tensor in zip(("Mul", "Add"), parameters or self._node.inputs[1:], strict=False):
            if tensor.is_empty():
                continue
            if shape is not None:
                n = self._add(op, n, self._add("Reshape", tensor, self._integers(*shape)))
            else:
                n = self._add(op, n, tensor)
        return n

    def _mean(self, x: gs.Tensor, mask: gs.Tensor, axes: list[int]) -> gs.Variable:
        return self._add("Mul", self._reduce("ReduceMean", self._add("Mul", x, mask), axes), self._ratio)

    def _reduce(self, op: str, x: gs.Variable, axes: list[int]) -> gs.Variable:
        if self._graph.opset < _REDUCE_TAKES_AXES_AS_INPUT:
            return self._add(op, x, axes=axes, keepdims=1)
        return self._add(op, x, self._integers(*axes))

    def _add(self, op: str, *inputs: gs.Tensor, dtype: type[np.generic] | None = None, **attrs: object) -> gs.Variable:
        output = gs.Variable(self._name(op.lower()), dtype=dtype or self._dtype)
        self._made.append(gs.Node(op, name=output.name, attrs=dict(attrs), inputs=list(inputs), outputs=[output]))
        return output

    def _constant(self, values: np.ndarray) -> gs.Constant:
        return gs.Constant(self._name("constant"), values.astype(self._dtype))

    def _name(self, what: str) -> str:
        return fresh_name(self._graph, f"{self._node.name}/{self._x.name}/statistics_{what}")


def _positions(dim: Dim) -> int:
    """Return how many positions lie behind each entry of an axis if their number is known at run time only, else 0."""
    factors = list(dim.resolve().factors)
    count = 1
    while factors and factors[-1].dynamic:
        count *= factors.pop().size
    return count if len(factors) < len(dim.resolve().factors) else 0
