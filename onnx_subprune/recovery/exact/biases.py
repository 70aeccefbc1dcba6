"""Biases for layers that have none, so that a fit can shift what they give; those that stay zero go again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper

from onnx_subprune.model import array_of, given_names, initializer
from onnx_subprune.model.protos import ONNX_DOMAINS
from onnx_subprune.recovery.exact.linear_layers import outputs_of
from onnx_subprune.recovery.exact.weight_views import View, Views, count_reads

__all__ = ["with_biases", "without_idle_biases"]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def with_biases(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy in which Conv and Gemm nodes with a stored weight have biases of their own.

    Nodes that share a weight share the new bias, and the bias that they share already stays theirs.

    Returns:
        The copy, and of the biases that are new the names: of the one that was read before, empty for none.

    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    giver = _Giver(copy)
    for node in copy.graph.node:
        if node.op_type in _OPERATORS and node.domain in ONNX_DOMAINS and len(node.input) > 1:
            giver.give(node)
    return copy, giver.added


class _Giver:
    """Gives nodes biases, and remembers which."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._reads = count_reads(model)
        self._views = Views(model)
        self._fixed = given_names(model) | {value.name for value in model.graph.output}
        outputs = {name for node in model.graph.node for name in node.output}
        self._taken = set(self._reads) | set(self._stored) | self._fixed | outputs
        self._alike = {tensor.name for tensor in model.graph.initializer if self._is_read_alike(tensor.name)}
        self._shared: dict[str, str] = {}
        self.added: dict[str, str] = {}

    def give(self, node: onnx.NodeProto) -> None:
        """Give a node a bias, unless it has one of its own, or one that cannot be told apart."""
        weight, bias = self._views.of(node.input[1]), node.input[2] if len(node.input) > 2 else ""
        if weight is None or weight.dtype not in _FLOATS or (bias and not self._is_foreign(bias, weight)):
            return
        name = self._shared.get(weight.tensor.name) or self._add_bias(node, weight, bias)
        if weight.tensor.name in self._alike:
            self._shared[weight.tensor.name] = name
        del node.input[2:]
        node.input.append(name)

    def _is_read_alike(self, weight: str) -> bool:
        """Whether several nodes read a weight, all with one bias or all without any."""
        uses = list(self._views.uses(weight))
        biases = {node.input[2] if len(node.input) > 2 else "" for node, _ in uses}
        return len(uses) > 1 == len(biases) and all(i == 1 and n.op_type in _OPERATORS for n, i in uses)

    def _is_foreign(self, bias: str, weight: View) -> bool:
        """Whether a stored bias has readers that do not share the weight."""
        if bias not in self._stored or bias in self._fixed or self._reads[bias] == 1:
            return False
        readers = {id(reader) for reader, _ in self._views.uses(bias)}
        return self._views.elsewhere(bias) is not None or readers != {
            id(reader) for reader, _ in self._views.uses(weight.tensor.name)
        }

    def _add_bias(self, node: onnx.NodeProto, weight: View, bias: str) -> str:
        name = _fresh(f"{node.name}_bias", self._taken)
        self._taken.add(name)
        self.added[name] = bias
        none = np.zeros(outputs_of(node, weight), helper.tensor_dtype_to_np_dtype(weight.dtype))
        self._graph.initializer.append(initializer(array_of(self._stored[bias]) if bias else none, name))
        return name


def _fresh(name: str, taken: Collection[str]) -> str:
    candidates = (f"{name}{number or ''}" for number in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def without_idle_biases(model: onnx.ModelProto, added: Mapping[str, str]) -> onnx.ModelProto:
    """Return the model without those of the biases of `with_biases` that say nothing; it is changed in place."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    gone = {name for name, before in added.items() if _is_idle(stored, name, before)}
    for node in model.graph.node:
        if len(node.input) > 2 and node.input[2] in gone:
            before = added[node.input[2]]
            del node.input[2:]
            node.input.extend([before] if before else [])
    # What nobody reads any more: a bias that was shared, all of whose readers have one of their own.
    reads = count_reads(model)
    gone |= {name for name in added.values() if name and not reads[name]}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in gone]
    if gone:
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return model


def _is_idle(stored: Mapping[str, onnx.TensorProto], name: str, before: str) -> bool:
    values = array_of(stored[name])
    return bool(np.array_equal(values, array_of(stored[before])) if before else not values.any())
