"""A skeleton is a model whose large float constants are only described: shape, type and how to draw them anew.

The description stands in the doc string of the tensor, which has no data:

    normal MEAN STD     independent normal values
    positive MEAN       uniform between half and one and a half times MEAN
    same NAME [PERM]    the values of another tensor, transposed by PERM: tied weights stay tied

A tensor is kept as it is if it holds integers, has at most 32 entries, has at most four different values (a mask, a
padding, a scale) or is not finite.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from zoo.roles import Role, roles_of

__all__ = ["count_parameters", "read_skeleton", "refill", "strip", "write_skeleton"]

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_SMALL = 32
_FEW_VALUES = 4
_PATH = re.compile(r"(^|[\s\"'(])(/[\w.-]+){2,}|[A-Za-z]:\\")


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the skeleton of a model; weights of linear maps are drawn with std = 1 / sqrt(fan-in)."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    _forget_origin(bare)
    roles = roles_of(bare.graph)
    seen: dict[tuple[object, ...], str] = {}
    for name, tensor in _tensors(bare.graph):
        if tensor.data_type not in _FLOATS or np.prod(tensor.dims) <= _SMALL:
            continue
        values = numpy_helper.to_array(tensor)
        if not np.isfinite(values).all() or len(np.unique(values)) <= _FEW_VALUES:
            continue
        _describe(tensor, _tie(name, values, seen) or _recipe(values, roles.get(name, Role("other"))))
    return bare


def refill(skeleton: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Return the skeleton with its constants drawn; the same seed gives the same bytes."""
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    drawn: dict[str, np.ndarray] = {}
    for name, tensor in _tensors(model.graph):
        recipe = tensor.doc_string.split()
        if not recipe:
            continue
        values = _draw(recipe, tuple(tensor.dims), np.random.default_rng([seed, zlib.crc32(name.encode())]), drawn)
        drawn[name] = values
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), tensor.name))
    return model


def write_skeleton(skeleton: onnx.ModelProto, path: Path) -> int:
    """Write a skeleton, compressed; return the size of the file."""
    data = lzma.compress(skeleton.SerializeToString(deterministic=True), preset=9 | lzma.PRESET_EXTREME)
    path.write_bytes(data)
    return len(data)


def read_skeleton(path: Path) -> onnx.ModelProto:
    """Read what `write_skeleton` wrote."""
    return onnx.ModelProto.FromString(lzma.decompress(path.read_bytes()))


def count_parameters(skeleton: onnx.ModelProto) -> int:
    """Return the number of floating-point values of one axis or more that a skeleton stores."""
    constants = [a.t for n in skeleton.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    total = 0
    for tensor in (*skeleton.graph.initializer, *constants):
        if tensor.data_type in _FLOATS and tensor.dims:
            count = 1
            for size in tensor.dims:
                count *= size
            total += count
    return total


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield initializers and values of Constant nodes with their names, also those of subgraphs."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drop what tells of the machine that exported: doc strings, stack traces, paths."""
    model.doc_string = ""
    kept = [entry for entry in model.metadata_props if not _PATH.search(entry.value)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    _forget_graph(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            _forget_node(node)


def _forget_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in graph.node:
        _forget_node(node)


def _forget_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""
        if attribute.HasField("t"):
            attribute.t.doc_string = ""
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            _forget_graph(inner)


def _describe(tensor: onnx.TensorProto, recipe: str) -> None:
    bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, doc_string=recipe)
    tensor.CopyFrom(bare)


def _tie(name: str, values: np.ndarray, seen: dict[tuple[object, ...], str]) -> str | None:
    """Return a reference to an equal tensor, possibly transposed; remember this one if there is none."""
    axes = tuple(range(values.ndim))
    for perm in {axes, axes[::-1]} if values.ndim == 2 else {axes}:
        view = np.transpose(values, perm)
        if found := seen.get((str(view.dtype), view.shape, zlib.crc32(np.ascontiguousarray(view).tobytes()))):
            back = ",".join(str(axis) for axis in np.argsort(perm))
            return f"same {found} {back}"
    seen[str(values.dtype), values.shape, zlib.crc32(values.tobytes())] = name
    return None


def _recipe(values: np.ndarray, role: Role) -> str:
    if role.kind == "linear":
        return f"normal 0 {1 / np.sqrt(role.fan_in):.3g}"
    if role.kind == "scale":
        return "normal 1 0.1"
    if role.kind == "shift":
        return "normal 0 0.1"
    if role.kind == "variance":
        return "positive 1"
    wide = values.astype(np.float64)
    return f"normal {wide.mean():.2g} {wide.std():.2g}"


def _draw(
    recipe: list[str], shape: tuple[int, ...], generator: np.random.Generator, drawn: dict[str, np.ndarray]
) -> np.ndarray:
    kind, *parameters = recipe
    if kind == "same":
        return np.transpose(drawn[parameters[0]], [int(axis) for axis in parameters[1].split(",")])
    if kind == "positive":
        return float(parameters[0]) * generator.uniform(0.5, 1.5, shape)
    mean, std = (float(value) for value in parameters)
    values: np.ndarray = generator.standard_normal(shape, dtype=np.float32) * np.float32(std) + np.float32(mean)
    return values
