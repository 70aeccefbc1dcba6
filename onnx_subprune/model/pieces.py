"""The part of a network behind some of its tensors: what has to run again once these are others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import onnx
from numpy.typing import NDArray

from onnx_subprune.model.fields import array_of
from onnx_subprune.model.protos import bodies, constant_tensor, references

__all__ = ["Behind", "Place", "constant_nodes", "reads"]

_RANDOM = ("RandomNormal", "RandomUniform")

Place: TypeAlias = tuple[str, int]
"""An input of a node: the name of the node's first output that has one, and the input's number."""


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those that its bodies take from outside too."""
    names = set(node.input).union(*(references(body) for body in bodies(node)))
    names.discard("")
    return names


def constant_nodes(nodes: Sequence[onnx.NodeProto], reads: Sequence[set[str]], fed: Collection[str]) -> set[int]:
    """Return the places of nodes that compute with constants alone, always with the same result.

    Args:
        nodes: in order.
        reads: the names that each of them reads.
        fed: names of the tensors that are given to a run.

    """
    varying, constant = set(fed), set()
    for index, node in enumerate(nodes):
        # A body may hold what is random.
        if varying.isdisjoint(reads[index]) and not node.op_type.startswith(_RANDOM) and not any(bodies(node)):
            constant.add(index)
        else:
            varying.update(node.output)
    return constant


class Behind:
    """Finds what is behind tensors of a network, as far as its outputs depend on it.

    Args:
        model: its nodes are in order.

    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            # In old files a constant that is no input of the graph is a node.
            tensor = constant_tensor(node)
            if tensor is None:
                self._nodes.append(node)
            else:
                self._stored[node.output[0]] = _renamed(tensor, node.output[0])
        self._reads = [reads(node) for node in self._nodes]
        self._makers = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        self._sparse = {tensor.values.name: tensor for tensor in model.graph.sparse_initializer}
        fed = {value.name for value in model.graph.input} - self._stored.keys() - self._sparse.keys()
        self._constant = constant_nodes(self._nodes, self._reads, fed)
        self._needed = self._before([value.name for value in model.graph.output])
        self._readers: dict[str, list[int]] = {}
        for index, names in enumerate(self._reads):
            for name in names:
                self._readers.setdefault(name, []).append(index)

    def nodes(self, constants: Iterable[str], places: Iterable[Place] = ()) -> list[int]:
        """Return the nodes that compute something else once constants, or what nodes read, are others, in order.

        Args:
            constants: names of stored tensors.
            places: inputs of nodes.

        """
        queue = [index for name in constants for index in self._readers.get(name, ())]
        queue += [self._makers[output] for output, _ in places]
        behind: set[int] = set()
        while queue:
            index = queue.pop()
            if index in self._needed and index not in behind:
                behind.add(index)
                queue += [reader for name in self._nodes[index].output for reader in self._readers.get(name, ())]
        return sorted(behind)

    def with_makers(self, nodes: Iterable[int], names: Collection[str] = ()) -> list[int]:
        """Return nodes with those that make some of what they read, and with all that computes with constants alone.

        Args:
            nodes: of `nodes`.
            names: of tensors that cannot be fed.

        """
        taken: set[int] = set()
        queue = list(nodes)
        while queue:
            index = queue.pop()
            if index not in taken:
                taken.add(index)
                makers = {name: self._makers[name] for name in self._reads[index] if name in self._makers}
                queue += [maker for name, maker in makers.items() if maker in self._constant or name in names]
        return sorted(taken)

    def fed(self, nodes: Sequence[int]) -> list[str]:
        """Return the tensors that nodes read and none of them makes, in order of their names; no stored ones."""
        made = {name for index in nodes for name in self._nodes[index].output}
        read = {name for index in nodes for name in self._reads[index]}
        return sorted(read - made - self._stored.keys() - self._sparse.keys())

    def stored(self, name: str) -> NDArray[Any]:
        """Return the values of a stored tensor.

        Args:
            name: of the tensor.

        """
        return array_of(self._stored[name])

    def piece(
        self,
        nodes: Sequence[int],
        inputs: Sequence[onnx.ValueInfoProto],
        factors: Mapping[Place, str],
    ) -> onnx.ModelProto:
        """Return a model of nodes, with those outputs of the whole that they make.

        Args:
            nodes: in order.
            inputs: tensors to feed, stored ones of the whole among them.
            factors: names of tensors by which what nodes read is multiplied.

        """
        piece = onnx.ModelProto(ir_version=max(self._model.ir_version, 4))
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        graph = piece.graph
        graph.name = "piece"
        graph.input.extend(inputs)
        given = {value.name for value in inputs}
        for index in nodes:
            node = self._nodes[index]
            first = next((output for output in node.output if output), "")
            scaled = [(number, name) for (output, number), name in factors.items() if output == first]
            if scaled:
                node = _copied(node)
                for number, name in scaled:
                    product = f"{name}.product"
                    graph.node.append(onnx.helper.make_node("Mul", [node.input[number], name], [product]))
                    node.input[number] = product
            graph.node.append(node)
        read = {name for index in nodes for name in self._reads[index]} - given
        made = {name for index in nodes for name in self._nodes[index].output}
        graph.initializer.extend(self._stored[name] for name in sorted(read & self._stored.keys()))
        graph.sparse_initializer.extend(self._sparse[name] for name in sorted(read & self._sparse.keys()))
        graph.output.extend(value for value in self._model.graph.output if value.name in made)
        return piece

    def _before(self, names: Iterable[str]) -> set[int]:
        """Return the nodes that tensors depend on."""
        before: set[int] = set()
        queue = list(names)
        while queue:
            index = self._makers.get(queue.pop())
            if index is not None and index not in before:
                before.add(index)
                queue += self._reads[index]
        return before


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
