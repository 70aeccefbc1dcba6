"""Stored weights as nodes read them, at once or through a chain, and all that reads each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from onnx_subprune.model import attribute_of, given_names
from onnx_subprune.model.protos import ONNX_DOMAINS, graphs
from onnx_subprune.structure import PASSED_THROUGH, RECURRENT
from onnx_subprune.structure.weight_layout import Link, follow, unfused

__all__ = ["View", "Views", "bias_input", "count_reads"]


@dataclass(frozen=True, eq=False)
class View:
    """A stored weight as a node reads it.

    Attributes:
        tensor: the initializer.
        perm: its axes in the order that the node sees.
        dtypes: element types: the stored one, and those of casts on the way; the node sees the last.

    """

    tensor: onnx.TensorProto
    perm: tuple[int, ...]
    dtypes: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """Sizes as the node sees them."""
        return tuple(int(self.tensor.dims[axis]) for axis in self.perm)

    @property
    def dtype(self) -> int:
        """Element type that the node sees."""
        return self.dtypes[-1]


class Views:
    """The weights of a network.

    Args:
        model: the network.

    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        self._links: dict[str, Link[str]] = {}
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, index))
            if node.op_type in PASSED_THROUGH and node.domain in ONNX_DOMAINS:
                self._links[node.output[0]] = _link(node)
        self._reads = count_reads(model)
        self._given = given_names(model)
        self._returned = {value.name for value in model.graph.output}

    def of(self, name: str) -> View | None:
        """Return the weight behind the input of a node; None for a tensor that is computed otherwise."""
        chain = follow(name, self._stored.__contains__, self._links.get)
        if chain is None:
            return None
        tensor = self._stored[chain.stored]
        return View(tensor, chain.perm(len(tensor.dims)), (int(tensor.data_type), *chain.dtypes))

    def absence(self, name: str) -> str:
        """Return why there is no weight behind the input of a node."""
        sparse = follow(name, self._sparse.__contains__, self._links.get) is not None
        return "its weight is stored sparsely, which a fit would fill" if sparse else "its weight is computed"

    def uses(self, name: str) -> Iterator[tuple[onnx.NodeProto, int]]:
        """Yield the nodes that compute with a tensor, through chains too, with the input that it is."""
        for node, index in self._readers.get(name, ()):
            if node.output[0] in self._links:
                yield from self.uses(node.output[0])
            else:
                yield node, index

    def elsewhere(self, name: str) -> str | None:
        """Return what stands in the way of changing a tensor beside the nodes that read it; None for nothing."""
        if name in self._given:
            return "is an input of the graph with a default; export without keep_initializers_as_inputs"
        if name in self._returned:
            return "is an output of the network too"
        readers = self._readers.get(name, ())
        if self._reads[name] != len(readers):
            return "is read in the body of a loop or a branch too"
        links = (node.output[0] for node, _ in readers if node.output[0] in self._links)
        return next((reason for reason in map(self.elsewhere, links) if reason is not None), None)


def _link(node: onnx.NodeProto) -> Link[str]:
    perm = attribute_of(node, "perm", None)
    return Link(node.input[0], node.op_type, perm, int(attribute_of(node, "to", 0)))


def count_reads(model: onnx.ModelProto) -> Counter[str]:
    """Count how often each name is read, in bodies and as an output too."""
    return Counter(_read_names(model.graph))


def _read_names(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in graphs(graph):
        yield from (value.name for value in inner.output)
        for node in inner.node:
            yield from filter(None, node.input)


def bias_input(node: onnx.NodeProto) -> str:
    """Return the tensor that a linear node adds by itself; an empty text for none."""
    index = 3 if node.op_type in RECURRENT else 2
    has_one = unfused(node.op_type) != "MatMul" and len(node.input) > index
    return str(node.input[index]) if has_one else ""
