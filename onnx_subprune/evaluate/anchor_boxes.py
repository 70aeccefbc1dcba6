"""Boxes of all anchors in one output, with the scores of the classes beside them: found in the graph.

Detectors of the YOLO family give one tensor [images, columns, anchors] or [images, anchors, columns]: four columns of
a box, where there is one the score of there being any object, and a score for each class. Its shape says none of this,
and a sequence of classes may have the same. The graph does: the columns are joined by a Concat, the first four of them
are decoded (positions of a grid are added to what a layer gives, or the points that a decoder refines), and a Sigmoid
or a Softmax makes those behind them. What is not understood is taken for no boxes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.model.compared_models import known_sizes
from onnx_subprune.model.decisions import varying_tensors
from onnx_subprune.model.protos import constant_tensor

__all__ = ["AnchorBoxes", "anchor_boxes"]

Array = NDArray[Any]
Sizes = Mapping[str, Sequence[int | str | None]]

_BOX = 4
_MOST_AXES = 8
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_SATURATING = ("HardSigmoid", "Sigmoid", "Softmax")
_PARTS = ("Slice", "Split")
_LAYOUT = ("Cast", "Concat", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_ELEMENTWISE = ("Add", "Clip", "Div", "Exp", "Max", "Mul", "Pow", "Relu", "Sigmoid", "Softplus", "Sub")


@dataclass(frozen=True)
class AnchorBoxes:
    """How an output [images, columns, anchors] or [images, anchors, columns] holds boxes.

    Attributes:
        axis: of the columns, 1 or 2; the first four are a box.
        objectness: whether the fifth column is the score of there being any object.
        classes: first column of the scores of the classes, and the one after the last.

    """

    axis: int
    objectness: bool
    classes: tuple[int, int]

    def parts(self, value: Array) -> tuple[Array, Array]:
        """Return the boxes [images, anchors, 4] and the scores of their classes [images, anchors, classes].

        Args:
            value: of the output.

        """
        rows = np.moveaxis(value, self.axis, 2).astype(np.float64)
        scores = rows[..., slice(*self.classes)]
        return rows[..., :_BOX], scores * rows[..., _BOX : _BOX + 1] if self.objectness else scores


@dataclass(frozen=True)
class _Columns:
    """Columns side by side, of one tensor: made by a Sigmoid or a Softmax, of constants, or else computed."""

    width: int
    kind: str
    tensor: str


def anchor_boxes(model: onnx.ModelProto) -> dict[str, AnchorBoxes]:
    """Return the outputs that hold the boxes of all anchors, by name.

    Args:
        model: the network.

    """
    search = _Search(model)
    found = {value.name: search.layout(value.name) for value in model.graph.output}
    return {name: layout for name, layout in found.items() if layout is not None}


class _Search:
    """The graph of a network, with the sizes of its tensors as far as they are asked for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        constants = _constants(model)
        self._stored = {name: list(tensor.dims) for name, tensor in constants.items()}
        self._values = {name: _integers(tensor) for name, tensor in constants.items() if _is_short(tensor)}
        self._sizes: Sizes = {}
        self._varying: Collection[str] = ()

    def layout(self, output: str) -> AnchorBoxes | None:
        """Return how an output holds boxes; None where it is not known to."""
        behind = list(self._behind(output, (*_LAYOUT, *_PARTS)))
        operators = {self._makers[name].op_type for name in behind if name in self._makers}
        if "Concat" not in operators or operators.isdisjoint(_SATURATING):
            return None
        wider = [name for name in self._behind(output, (*_LAYOUT, *_PARTS, *_ELEMENTWISE)) if name in self._makers]
        self._sizes, self._varying = known_sizes(self._model, wider), varying_tensors(self._model)
        if len(self._sizes.get(output, ())) != 3:
            return None
        layouts = (self._layout(axis, list(self._columns(output, axis))) for axis in (2, 1))
        return next((layout for layout in layouts if layout is not None), None)

    def _layout(self, axis: int, columns: Sequence[_Columns]) -> AnchorBoxes | None:
        widths = np.cumsum([part.width for part in columns]).tolist()
        if _BOX not in widths or any(part.width < 1 for part in columns):
            return None
        box, rest = columns[: widths.index(_BOX) + 1], columns[widths.index(_BOX) + 1 :]
        scores = list(takewhile(lambda part: part.kind != "computed", rest))
        if not any(part.kind == "saturated" for part in scores) or not any(self._is_decoded(part) for part in box):
            return None
        end = _BOX + sum(part.width for part in scores)
        objectness = scores[0].width == 1 and len(scores) > 1
        if len(scores) == 1 and scores[0].width > 1 and box[0].kind == "computed":
            # Anchors whose centres a Sigmoid bounds (YOLOv3 to v5 and v7) have one, beside the classes.
            objectness = any(self._operator(name) == "Sigmoid" for part in box for name in self._decoding(part))
        return AnchorBoxes(axis, objectness, (_BOX + objectness, end))

    def _columns(self, name: str, axis: int) -> Iterator[_Columns]:
        """Yield the columns of a tensor along an axis, in order; a width of 0 where it is not known."""
        node = self._makers.get(name)
        inner = None if node is None else self._inner_axis(node, axis)
        if node is None or inner is None:
            yield _Columns(self._width(name, axis), self._kind(name), name)
        elif node.op_type == "Concat":
            yield from self._joined(node, axis)
        elif node.op_type in _PARTS:
            bounds = self._bounds(node, name, axis)
            whole = [*self._columns(node.input[0], axis)]
            yield from whole if bounds is None else _cut(whole, *bounds)
        else:
            yield from self._columns(node.input[0], inner)

    def _joined(self, node: onnx.NodeProto, axis: int) -> Iterator[_Columns]:
        """Yield the columns of a Concat: those of all inputs, or of the first where all have the same."""
        levels = [list(self._columns(each, axis)) for each in node.input]
        if _axis_of(node, len(self._sizes_of(node.output[0]))) == axis:
            parts = [part for level in levels for part in level]
            # Of one width that is not known, the others leave what it is.
            left = self._width(node.output[0], axis) - sum(part.width for part in parts)
            unknown = sum(not part.width for part in parts) == 1
            yield from (replace(part, width=left) if unknown and not part.width else part for part in parts)
        elif len({tuple((part.width, part.kind) for part in level) for level in levels}) == 1:
            yield from levels[0]
        else:
            yield _Columns(self._width(node.output[0], axis), "computed", node.output[0])

    def _bounds(self, node: onnx.NodeProto, name: str, axis: int) -> tuple[int, int] | None:
        """Return the first and the last column, exclusive, that a Slice or a Split takes; None where it takes all."""
        rank = len(self._sizes_of(name))
        if not rank:
            return None
        if node.op_type == "Split":
            before = node.output[: list(node.output).index(name)]
            start = sum(self._width(each, axis) for each in before)
            return (start, start + self._width(name, axis)) if _axis_of(node, rank) == axis else None
        named = len(node.input) > 3 and bool(node.input[3])
        places = self._values.get(node.input[3], ()) if named else range(len(self._values.get(node.input[1], ())))
        axes = [place % rank for place in places]
        if axis not in axes:
            return None
        starts = self._values.get(node.input[1])
        start = 0 if starts is None else starts[axes.index(axis)]
        start += self._width(node.input[0], axis) if start < 0 else 0
        return start, start + self._width(name, axis)

    def _inner_axis(self, node: onnx.NodeProto, axis: int) -> int | None:
        """Return the axis of a node's first input that is this one of its output; None where that is not known."""
        before, after = (self._sizes_of(name) for name in (node.input[0] if node.input else "", node.output[0]))
        if node.op_type in ("Cast", "Concat", "Identity", "Split") or (
            node.op_type == "Slice" and self._is_plain(node)
        ):
            return axis
        if node.op_type == "Transpose":
            order = next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), None)
            order = order or list(range(len(after)))[::-1]
            return order[axis] if axis < len(order) else None
        if node.op_type != "Reshape" or not before or axis >= len(after) or not isinstance(after[axis], int):
            return None
        if axis == len(after) - 1 and before[-1] == after[-1]:
            return len(before) - 1
        return axis if axis == 1 and before[1:2] == after[1:2] else None

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Whether a Slice takes columns one by one from a known place on."""
        known = [name in self._values for name in node.input[1:2] + node.input[3:]]
        return (
            len(node.input) > 2
            and all(known)
            and all(step == 1 for step in self._values.get("".join(node.input[4:]), ()))
        )

    def _kind(self, name: str) -> str:
        if name not in self._varying:
            return "constant"
        node = self._makers[name]
        if node.op_type in _SATURATING:
            return "saturated"
        reads = node.input if node.op_type == "Mul" else node.input[:1]
        moved = node.op_type in (*_LAYOUT, *_PARTS, "Mul") and node.op_type != "Concat"
        return "saturated" if moved and all(self._kind(each) == "saturated" for each in reads) else "computed"

    def _is_decoded(self, part: _Columns) -> bool:
        """Whether positions are added on the way to these columns."""
        if part.kind == "constant":
            return False
        for name in self._decoding(part):
            node = self._makers.get(name)
            if node is None or node.op_type not in ("Add", "Sub"):
                continue
            fixed = [each for each in node.input if each not in self._varying]
            if any(self._is_grid(each) for each in fixed) or (part.kind == "saturated" and not fixed):
                return True
        return False

    def _decoding(self, part: _Columns) -> Iterator[str]:
        """Yield the tensors between a layer and these columns."""
        return self._behind(part.tensor, (*_LAYOUT, *_PARTS, *_ELEMENTWISE))

    def _is_grid(self, name: str) -> bool:
        """Whether a tensor that no weight changes holds positions: a bias is stored, and has one axis."""
        return name in self._makers if name not in self._stored else sum(size > 1 for size in self._stored[name]) > 1

    def _behind(self, name: str, operators: Collection[str]) -> Iterator[str]:
        """Yield a tensor and those that it is made of by some operators alone."""
        pending, seen = [name], {name}
        while pending:
            tensor = pending.pop()
            yield tensor
            for read in self._makers[tensor].input if self._operator(tensor) in operators else ():
                if read and read not in seen:
                    seen.add(read)
                    pending.append(read)

    def _operator(self, name: str) -> str:
        return self._makers[name].op_type if name in self._makers else ""

    def _sizes_of(self, name: str) -> Sequence[int | str | None]:
        return self._sizes.get(name) or tuple(self._stored.get(name, ()))

    def _width(self, name: str, axis: int) -> int:
        sizes = self._sizes_of(name)
        width = sizes[axis] if axis < len(sizes) else None
        return width if isinstance(width, int) else 0


def _cut(columns: Sequence[_Columns], start: int, stop: int) -> Iterator[_Columns]:
    """Yield the columns from one place to another."""
    for part in columns:
        width = min(stop, part.width) - max(start, 0)
        if width > 0:
            yield _Columns(width, part.kind, part.tensor)
        start, stop = start - part.width, stop - part.width


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made = ((node.output[0], constant_tensor(node)) for node in model.graph.node if node.op_type == "Constant")
    return constants | {name: tensor for name, tensor in made if tensor is not None}


def _is_short(tensor: onnx.TensorProto) -> bool:
    """Whether a constant may be the places or the axes of a Slice."""
    return len(tensor.dims) < 2 and sum(tensor.dims) <= _MOST_AXES and tensor.data_type in _INTEGERS


def _integers(tensor: onnx.TensorProto) -> list[int]:
    values: list[int] = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
    return values


def _axis_of(node: onnx.NodeProto, rank: int) -> int:
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
    return axis + rank if axis < 0 else axis
