"""Tensors that the user names to compare networks at: passes keep them as they keep outputs, and no file gives them.

While a graph is edited they are outputs of it, so that they keep their names, their sizes and what they mean. In what
is written they are tensors inside, as they are in the model that was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.model import Scratch, to_graph, to_model
from onnx_subprune.model.protos import bodies, references

__all__ = ["drop_unread", "opened", "written"]


def opened(model: onnx.ModelProto, names: Sequence[str]) -> gs.Graph:
    """Return the graph of a model with tensors inside as further outputs.

    Args:
        model: has the tensors.
        names: of the tensors; those that are outputs already stay in their place.

    """
    graph = to_graph(model)
    outputs = {tensor.name for tensor in graph.outputs}
    tensors = graph.tensors() if names else {}
    graph.outputs.extend(tensors[name] for name in dict.fromkeys(names) if name not in outputs)
    return graph


def written(graph: gs.Graph, like: onnx.ModelProto, scratch: Scratch | None = None) -> onnx.ModelProto:
    """Export a graph with the outputs of the model that it came from, and no others; the graph loses these too.

    Args:
        graph: as passes left it.
        like: the model that `opened` got.
        scratch: where larger new weights go; None to hold them in the message.

    """
    outputs = {value.name for value in like.graph.output}
    graph.outputs = [tensor for tensor in graph.outputs if tensor.name in outputs]
    return to_model(graph, like, scratch)


def drop_unread(model: onnx.ModelProto, names: Iterable[str]) -> None:
    """Remove the nodes that gave nothing but named tensors that nobody reads, and their weights, in place.

    Args:
        model: a finished network.
        names: of tensors that networks were compared at.

    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    pending = list(names)
    while pending:
        node = makers.get(pending.pop())
        if node is None or not references(graph).isdisjoint(node.output):
            continue
        reads = {*node.input, *(name for body in bodies(node) for name in references(body))}
        graph.node.remove(node)
        unread = reads - references(graph) - {value.name for value in graph.input}
        _take_out(graph.initializer, unread)
        _take_out(graph.value_info, set(node.output))
        makers = {name: node for node in graph.node for name in node.output}
        pending += sorted(unread)


def _take_out(field: Any, gone: Collection[str]) -> None:
    """Take the messages of some names out of a list of them."""
    kept = [entry for entry in field if entry.name not in gone]
    del field[:]
    field.extend(kept)
