"""An index over the graph message that a GraphSurgeon graph came from: what it defines, by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import onnx

from onnx_subprune.model.protos import constant_tensor, references

__all__ = ["Origin", "node_key"]


def node_key(outputs: Sequence[str], name: str) -> str:
    """Return the key that a node is recognised by: its first output, or its name when it has none.

    >>> node_key(["", "y"], "/relu")
    'y'
    """
    return next((output for output in outputs if output), f"\0{name}")


class Origin:
    """The original of one graph; an empty message stands for a graph that passes made anew."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph

    @cached_property
    def nodes(self) -> dict[str, onnx.NodeProto]:
        """Nodes by what they are recognised by."""
        return {node_key(node.output, node.name): node for node in self.graph.node}

    @cached_property
    def positions(self) -> dict[str, int]:
        """Index of each node in the graph, by what it is recognised by."""
        return {key: index for index, key in enumerate(self.nodes)}

    @cached_property
    def constants(self) -> dict[str, onnx.NodeProto]:
        """Constant nodes that are tensors in the GraphSurgeon graph, by output."""
        return {key: node for key, node in self.nodes.items() if constant_tensor(node) is not None}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Dense initializers by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def sparse(self) -> dict[str, onnx.SparseTensorProto]:
        """Sparse initializers by name."""
        return {tensor.values.name: tensor for tensor in self.graph.sparse_initializer}

    @cached_property
    def references(self) -> set[str]:
        """Names that the graph or its bodies read."""
        return references(self.graph)

    @cached_property
    def infos(self) -> dict[str, list[onnx.ValueInfoProto]]:
        """All that is said of a tensor's type and shape, by name."""
        infos: dict[str, list[onnx.ValueInfoProto]] = {}
        for info in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            infos.setdefault(info.name, []).append(info)
        return infos

    @cached_property
    def symbols(self) -> set[str]:
        """Names of sizes that inputs, outputs and value infos speak of."""
        infos = [info for same in self.infos.values() for info in same]
        return {dim.dim_param for info in infos for dim in info.type.tensor_type.shape.dim if dim.dim_param}

    @cached_property
    def defined(self) -> set[str]:
        """Names of the tensors that exist in the graph itself."""
        names = {output for node in self.graph.node for output in node.output}
        return names | {value.name for value in self.graph.input} | set(self.initializers) | set(self.sparse)

    def stores(self, name: str) -> bool:
        """Whether the constant `name` is stored in this graph."""
        return name in self.initializers or name in self.sparse or name in self.constants
