"""Tensors that the user names to compare networks at: whether they are there, and whether comparing there makes sense.

It does where two networks may differ by a little: the tensor holds floats, depends on weights, is no decision (a second
network is given those of the first), and its size follows from the sizes of the inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

import onnx

from onnx_subprune.errors import OptionError
from onnx_subprune.model.decisions import Comparisons, comparisons_of, varying_tensors
from onnx_subprune.model.protos import bodies, graphs, references

__all__ = ["check_points"]

_EXAMPLES = 3
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")

_COUNTING = ("NonMaxSuppression", "NonZero", "Unique")
"""Operators whose outputs are as long as what they find."""

_SIZING: Mapping[str, tuple[int, ...]] = {
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
"""Operators with inputs whose values say how large an output is."""


def check_points(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Refuse tensors at which networks cannot be compared.

    Args:
        model: as it was given.
        names: of tensors.

    Raises:
        OptionError: a name is none of a tensor of the model's graph, or comparing there would say nothing.

    """
    if not names:
        return
    checked = _Checked(model)
    for name in dict.fromkeys(names):
        fault = checked.fault(name)
        if fault is not None:
            raise OptionError(f"expected a tensor to compare networks at, found '{name}', {fault}")


class _Checked:
    """What a model knows of its tensors.

    Args:
        model: as it was given.

    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._infos = _inferred(model)
        self._comparisons: Comparisons = comparisons_of(model)
        self._varying = varying_tensors(model)
        decisions = {decision.tensor for decision in self._comparisons.decisions}
        self._sized = _sized_by_data(model.graph, self._varying | decisions)

    def fault(self, name: str) -> str | None:
        """Return what is wrong with a name, and what to do; None where networks can be compared there."""
        if name not in self._makers:
            return self._absent(name)
        reason = self._unfit(name)
        return None if reason is None else f"{reason}; {self._advice(name)}"

    def _unfit(self, name: str) -> str | None:
        """Return why networks cannot be compared at a tensor that is there; None where they can."""
        kind = self._kind(name)
        if kind is not None:
            return f"which holds {kind} where floats are compared"
        for decision in self._comparisons.decisions:
            if decision.tensor == name:
                return f"a decision of {decision.operator} '{decision.node}', which is given to all networks alike"
        if self._varying and name not in self._varying:
            return "which inputs and decisions alone make, so that no two networks differ there"
        if name in self._sized and not self._has_fixed_sizes(name):
            return f"whose size depends on the data behind {self._sized[name]}"
        return None

    def _absent(self, name: str) -> str:
        given = [value.name for value in self._graph.input] + [tensor.name for tensor in self._graph.initializer]
        if name in given:
            return f"which is an input or a weight and the same in all networks; {self._advice(name)}"
        place = next((place for place in _inner_tensors(self._model) if place.tensor == name), None)
        if place is not None:
            return f"which is inside {place.inside}, where networks cannot be opened; name what that gives"
        nodes = [node for node in self._graph.node if name and node.name == name]
        outputs = [output for node in nodes for output in node.output if output]
        if outputs:
            return f"which is a node; it gives {_listed(outputs)}"
        nearest = get_close_matches(name, list(self._makers), _EXAMPLES)
        return f"which the model does not have; {_nearest(nearest) if nearest else self._advice(name)}"

    def _kind(self, name: str) -> str | None:
        """Return in words of what type a tensor is, where that is known and is not float."""
        info = self._infos.get(name)
        which = None if info is None else info.type.WhichOneof("value")
        if info is None or which is None:
            return None
        if which != "tensor_type":
            return f"a {which.removesuffix('_type').replace('_', ' ')}"
        number = info.type.tensor_type.elem_type
        kind = onnx.TensorProto.DataType.Name(number)
        return None if number == onnx.TensorProto.UNDEFINED or kind in _FLOATS else kind.lower()

    def _has_fixed_sizes(self, name: str) -> bool:
        """Whether every size is known to be a number, or that of an input."""
        info = self._infos.get(name)
        if info is None or not info.type.tensor_type.HasField("shape"):
            return False
        symbols = {dim.dim_param for value in self._graph.input for dim in value.type.tensor_type.shape.dim}
        sizes = info.type.tensor_type.shape.dim
        return all(dim.HasField("dim_value") or (dim.dim_param and dim.dim_param in symbols) for dim in sizes)

    def _advice(self, name: str) -> str:
        """Return examples of tensors that will do: those where networks are compared unless others are named."""
        tensors = [point.tensor for point in self._comparisons.points if point.tensor != name]
        fitting = [tensor for tensor in tensors if tensor in self._makers and self._unfit(tensor) is None]
        return f"name another, such as {_listed(fitting)}" if fitting else "name another tensor, or none"


@dataclass(frozen=True)
class _Place:
    """A tensor that is not of the main graph, and where it is in words."""

    tensor: str
    inside: str


def _inner_tensors(model: onnx.ModelProto) -> list[_Place]:
    """Return the tensors in the bodies of nodes and in functions."""
    places = [
        _Place(name, f"a body of {node.op_type} '{node.name}'")
        for node in model.graph.node
        for body in bodies(node)
        for graph in graphs(body)
        for inner in graph.node
        for name in inner.output
    ]
    functions = model.functions
    return places + [
        _Place(name, f"the function '{function.name}'")
        for function in functions
        for inner in function.node
        for name in inner.output
    ]


def _inferred(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return what is known of the types and sizes of tensors."""
    # Where inference gives up, what the model declares has to do.
    with suppress(onnx.shape_inference.InferenceError, ValueError):
        model = onnx.shape_inference.infer_shapes(model)
    return {value.name: value for value in (*model.graph.value_info, *model.graph.output)}


def _sized_by_data(graph: onnx.GraphProto, varying: Collection[str]) -> dict[str, str]:
    """Return the tensors whose size may depend on what varies, each with the node that makes it so."""
    varies = set(varying)
    causes: dict[str, str] = {}
    for node in graph.node:
        reads = {*node.input, *(name for body in bodies(node) for name in references(body))}
        cause = next((causes[name] for name in node.input if name in causes), None)
        if cause is None and _is_sizing(node, varies):
            cause = f"{node.op_type} '{node.name or node.output[0]}'"
        if node.op_type in ("Shape", "Size"):
            varies.update(node.output if cause is not None else ())
            continue
        if cause is not None:
            causes.update(dict.fromkeys(node.output, cause))
        if not varies.isdisjoint(reads):
            varies.update(node.output)
    return causes


def _is_sizing(node: onnx.NodeProto, varies: Collection[str]) -> bool:
    if node.op_type in _COUNTING:
        return any(name in varies for name in node.input)
    places = _SIZING.get(node.op_type, ())
    return any(node.input[place] in varies for place in places if place < len(node.input))


def _nearest(names: Sequence[str]) -> str:
    return f"the nearest {'is' if len(names) == 1 else 'are'} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_EXAMPLES])
