"""The identity of a model: one hash over its graph and weights, whatever the file they came in looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import onnx

from onnx_subprune.model.protos import ONNX_DOMAINS
from onnx_subprune.model.stored import raw_bytes

__all__ = ["fingerprint"]

_Part = bytes | memoryview


def fingerprint(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of what `model` computes and how its tensors are called: graph, weights and opsets.

    Documentation, metadata, node names and the way weights are encoded (raw, typed, external) do not enter, so it is
    the same after a save and a load.

    Args:
        model: with its weights, in memory or in files where `load_model` left them.

    Raises:
        ModelError: external data is not loaded.

    """
    digest = hashlib.sha256()
    for part in _model_parts(model):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _model_parts(model: onnx.ModelProto) -> Iterator[_Part]:
    yield from _opset_parts(model.opset_import)
    yield from _graph_parts(model.graph)
    for function in model.functions:
        yield from _texts(function.domain, function.name, function.overload, *function.input, "->", *function.output)
        yield from _texts(*function.attribute)
        yield from _opset_parts(function.opset_import)
        yield from _attribute_parts(function.attribute_proto)
        yield from _node_parts(function.node)


def _texts(*texts: str) -> Iterator[bytes]:
    yield from (text.encode() for text in texts)


def _opset_parts(opsets: Iterable[onnx.OperatorSetIdProto]) -> Iterator[bytes]:
    yield from _texts(
        *sorted(f"{'' if opset.domain in ONNX_DOMAINS else opset.domain}:{opset.version}" for opset in opsets)
    )


def _graph_parts(graph: onnx.GraphProto) -> Iterator[_Part]:
    for value in (*graph.input, *graph.output):
        yield value.name.encode()
        yield value.type.SerializeToString(deterministic=True)
    for tensor in sorted(graph.initializer, key=lambda tensor: str(tensor.name)):
        yield from _tensor_parts(tensor)
    for sparse in sorted(graph.sparse_initializer, key=lambda sparse: str(sparse.values.name)):
        yield from _sparse_parts(sparse)
    yield from _node_parts(graph.node)


def _node_parts(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Part]:
    for node in nodes:
        yield from _texts("node", node.domain, node.op_type, node.overload, *node.input, "->", *node.output)
        yield from _attribute_parts(node.attribute)


def _attribute_parts(attributes: Iterable[onnx.AttributeProto]) -> Iterator[_Part]:
    for attribute in sorted(attributes, key=lambda attribute: str(attribute.name)):
        yield from _texts(attribute.name, str(attribute.type))
        if attribute.HasField("t"):
            yield from _tensor_parts(attribute.t, named=False)
        elif attribute.HasField("g"):
            yield from _graph_parts(attribute.g)
        elif attribute.HasField("sparse_tensor"):
            yield from _sparse_parts(attribute.sparse_tensor)
        else:
            plain = onnx.AttributeProto()
            plain.CopyFrom(attribute)
            plain.ClearField("doc_string")
            yield plain.SerializeToString(deterministic=True)


def _tensor_parts(tensor: onnx.TensorProto, *, named: bool = True) -> Iterator[_Part]:
    yield from _texts(tensor.name if named else "", str(tensor.data_type), str(list(tensor.dims)))
    yield raw_bytes(tensor)


def _sparse_parts(sparse: onnx.SparseTensorProto) -> Iterator[_Part]:
    yield str(list(sparse.dims)).encode()
    yield from _tensor_parts(sparse.values)
    yield from _tensor_parts(sparse.indices, named=False)
