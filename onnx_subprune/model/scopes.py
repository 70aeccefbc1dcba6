"""The modules of the exported program that nodes come from: PyTorch's exporter keeps their paths in the metadata."""

from __future__ import annotations

import ast

import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.model.origin import node_key

__all__ = ["scopes_of"]

_KEY = "pkg.torch.onnx.name_scopes"


def scopes_of(model: onnx.ModelProto, graph: gs.Graph) -> dict[str, tuple[str, ...]]:
    """Return the scopes of the nodes of a graph that have any, by the name of the node.

    Scopes are paths of modules, the outermost first (`encoder`, `encoder.layers.0`), and last the operation's own name.
    The root, whose path is empty, is left out.

    Args:
        model: whose nodes have metadata; it is read from the main graph alone.
        graph: of that model, where every node has a name of its own.

    """
    scopes = {node_key(node.output, node.name): _scopes(node) for node in model.graph.node}
    known = {node.name: scopes.get(node_key([t.name for t in node.outputs], node.name)) for node in graph.nodes}
    return {name: names for name, names in known.items() if names}


def _scopes(node: onnx.NodeProto) -> tuple[str, ...]:
    """Read the list, written as Python writes it; what is written otherwise is none."""
    written = next((entry.value for entry in node.metadata_props if entry.key == _KEY), "[]")
    try:
        names = ast.literal_eval(written)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    if not isinstance(names, list):
        return ()
    return tuple(name for name in names if isinstance(name, str) and name and name.isprintable())
