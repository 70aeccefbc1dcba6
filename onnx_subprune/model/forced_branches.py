"""Networks in which one branch of an If is taken whatever its condition says, to try, to calibrate and to fit both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.model.protos import ONNX_DOMAINS, graphs

__all__ = [
    "branch_input",
    "with_branch_as_input",
    "with_branch_taken",
    "with_branches_taken",
    "with_conditions_of",
]

_TAKEN = "/onnx_subprune/branch_taken"


def with_branch_taken(model: onnx.ModelProto, ifs: Collection[str], *, then: bool) -> onnx.ModelProto:
    """Return a copy of a network in which some Ifs, also within bodies, take the same branch every time.

    Args:
        model: the network; Ifs that it has not are passed over.
        ifs: the first outputs of the Ifs.
        then: whether they take their `then_branch`.

    >>> then, other = "t () => (float[2] a) { a = Neg(x) }", "e () => (float[2] b) { b = Abs(x) }"
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2] x) => (float[2] y) { y = If(c) <%s> }'
    >>> model = onnx.parser.parse_model(text % f"then_branch = {then}, else_branch = {other}")
    >>> taken = with_branch_taken(model, ["y"], then=False)
    >>> onnx.numpy_helper.to_array(taken.graph.initializer[0]).tolist()
    [False]

    """
    return with_branches_taken(model, dict.fromkeys(ifs, then))


def with_branches_taken(model: onnx.ModelProto, taken: Mapping[str, bool]) -> onnx.ModelProto:
    """Return a copy of a network in which some Ifs, also within bodies, take a branch of their own every time.

    Args:
        model: the network; Ifs that it has not are passed over.
        taken: whether they take their `then_branch`, by the first output of the If.

    """
    copy = _with_conditions(model, {name: f"{_TAKEN}/{then}" for name, then in taken.items()})
    constants = [onnx.numpy_helper.from_array(np.array([then]), f"{_TAKEN}/{then}") for then in set(taken.values())]
    copy.graph.initializer.extend(sorted(constants, key=lambda tensor: tensor.name))
    return copy


def with_branch_as_input(model: onnx.ModelProto, ifs: Collection[str]) -> onnx.ModelProto:
    """Return a copy of a network with one more input, `branch_input`, that says which branch some Ifs take.

    Args:
        model: the network; Ifs that it has not are passed over.
        ifs: the first outputs of the Ifs.

    """
    asking = _with_conditions(model, dict.fromkeys(ifs, _TAKEN))
    asking.graph.input.append(onnx.helper.make_tensor_value_info(_TAKEN, onnx.TensorProto.BOOL, [1]))
    return asking


def branch_input(*, then: bool) -> dict[str, NDArray[np.bool_]]:
    """Return the input that `with_branch_as_input` adds.

    Args:
        then: whether the Ifs take their `then_branch`.

    """
    return {_TAKEN: np.array([then])}


def with_conditions_of(model: onnx.ModelProto, original: onnx.ModelProto, ifs: Collection[str]) -> onnx.ModelProto:
    """Give the Ifs of a network back the conditions that they had, in place, and return it.

    Args:
        model: made of what `with_branch_as_input` returned.
        original: with the conditions.
        ifs: the first outputs of the Ifs.

    """
    conditions = {node.output[0]: node.input[0] for node in _ifs(original, ifs)}
    for node in _ifs(model, ifs):
        node.input[0] = conditions[node.output[0]]
    kept = [value for value in model.graph.input if value.name != _TAKEN]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def _with_conditions(model: onnx.ModelProto, conditions: Mapping[str, str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in _ifs(copy, conditions):
        node.input[0] = conditions[node.output[0]]
    return copy


def _ifs(model: onnx.ModelProto, outputs: Collection[str]) -> Iterator[onnx.NodeProto]:
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.op_type == "If" and node.domain in ONNX_DOMAINS and node.output[0] in outputs:
                yield node
