"""Where statistics are taken: taps, and the model that exposes them.

A tap names a tensor and the axis whose features a consumer contracts. The axis is an ordered product, row-major, of
`blocks` x features x `inner` entries: a grouped convolution has one block (and one Gram matrix) a group, and `inner`
entries are further positions of the same feature (a flattened map feeding a Gemm has inner = height x width). Blocks
may also lie on axes of their own (`stack`), as the experts of a batched matrix product do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnx_subprune.errors import ModelError

__all__ = ["RELATIVE", "Tap", "expose", "probe_shapes"]

RELATIVE = "/relative to "
"""Stands in the keys of taps whose positions count differently."""


@dataclass(frozen=True, order=True)
class Tap:
    """One place where second moments are taken.

    Attributes:
        tensor: name of a tensor of the graph.
        axis: the axis that holds the features; negative values count from the last axis.
        blocks: number of equal runs of features with a Gram matrix each.
        inner: entries of the axis that belong to one feature and count as positions.
        outer: runs of features that count as positions (a flattened channels-last map); 1 where there are blocks.
        stack: the axes before `axis` that hold the blocks, where they are not on `axis` itself.
        relative: name of a tensor of the same positions, features last: each position counts one over its mean square
            there; empty where all count alike.

    """

    tensor: str
    axis: int
    blocks: int = 1
    inner: int = 1
    outer: int = 1
    stack: tuple[int, ...] = ()
    relative: str = ""

    @property
    def key(self) -> str:
        """The name of this tap's statistics: `tensor@axis/blocks/inner[/outer][/stack][/relative]`.

        >>> Tap("h", 1).key, Tap("h", -1, inner=4, relative="s").key
        ('h@1/1/1', 'h@-1/1/4/relative to s')

        """
        key = f"{self.tensor}@{self.axis}/{self.blocks}/{self.inner}"
        key = key if self.outer == 1 else f"{key}/{self.outer}"
        key = "/stack".join((key, *map(str, self.stack)))
        return f"{key}{RELATIVE}{self.relative}" if self.relative else key

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors whose values are needed."""
        return (self.tensor, self.relative) if self.relative else (self.tensor,)


def expose(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model in which tensors are graph outputs, after the outputs it has.

    Args:
        model: left as it is.
        tensors: names. Graph inputs are left as they are: whoever runs the model has their values.

    Raises:
        ModelError: a tensor is neither an input nor computed at the top level of the graph.

    """
    missing = _not_fetched(model, tensors)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {info.name: info for info in model.graph.value_info}
    for name in missing:
        output = copy.graph.output.add()
        if name in known:
            output.type.CopyFrom(known[name].type)
        output.name = name
    return copy


def probe_shapes(model: onnx.ModelProto, tensors: Iterable[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy of a model whose only outputs are the shapes of tensors, and the output name for each tensor.

    Running it costs no memory for the tensors themselves: the runtime frees them as it goes.

    Args:
        model: left as it is.
        tensors: names.

    Raises:
        ModelError: a tensor is neither an input nor computed at the top level of the graph.

    """
    missing = sorted(set(tensors))
    _not_fetched(model, missing)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    names = {name: f"{name}/onnx_subprune/shape" for name in missing}
    for name, shape in names.items():
        copy.graph.node.append(onnx.helper.make_node("Shape", [name], [shape]))
        copy.graph.output.append(onnx.helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, [None]))
    return copy, names


def _not_fetched(model: onnx.ModelProto, tensors: Iterable[str]) -> list[str]:
    """The tensors that are not yet inputs or outputs of the graph, sorted; every one is checked to exist."""
    wanted = set(tensors)
    at_hand = {info.name for info in (*model.graph.input, *model.graph.output)}
    computed = {name for node in model.graph.node for name in node.output}
    for name in sorted(wanted - at_hand - computed):
        raise ModelError(
            f"tensor '{name}' expected among the inputs and node outputs of the graph, not found there; "
            "name a tensor of the top-level graph"
        )
    return sorted(wanted - at_hand)
