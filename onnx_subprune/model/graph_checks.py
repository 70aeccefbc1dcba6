"""Checks of nodes and of how they are wired: each returns what is wrong, or None."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import onnx

from onnx_subprune.model.protos import ONNX_DOMAINS, bodies

__all__ = ["NODE_CHECKS", "free_names", "idle_error", "label", "names_error", "order_error"]

_DRAWING = ("Bernoulli", "Multinomial", "Random")
_OLDEST_HELD = 7  # older operators lost and gained inputs; ONNX Runtime promises nothing for them


def label(node: onnx.NodeProto) -> str:
    """Return how a message names a node.

    >>> label(onnx.helper.make_node("Relu", ["x"], ["y"]))
    "node 'y' (Relu)"
    """
    return f"node '{node.name or next(iter(node.output), '')}' ({node.op_type})"


def free_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a body reads from the graphs around it."""
    made = _given(graph) | {name for node in graph.node for name in node.output}
    read = {value.name for value in graph.output}.union(*map(_reads, graph.node))
    return read - made - {""}


def _given(graph: onnx.GraphProto) -> set[str]:
    """The names that stand before the first node."""
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    return {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | sparse


def _reads(node: onnx.NodeProto) -> set[str]:
    return set(node.input).union(*map(free_names, bodies(node))) - {""}


def names_error(graph: onnx.GraphProto, *, around: Collection[str] = ()) -> str | None:
    """Return which tensor is made twice, or is read and made nowhere.

    Args:
        graph: the main graph, or a body.
        around: names that the graphs around a body make.

    """
    made = _given(graph)
    for node in graph.node:
        for name in node.output:
            if name and name in made:
                return f"{label(node)} must give tensors of its own, found '{name}', made twice: export it anew"
            made.add(name)
    for node in graph.node:
        for name in node.input:
            if name and name not in made and name not in around:
                return f"{label(node)} reads '{name}', which nothing makes: export it anew"
    for value in graph.output:
        if value.name not in made and value.name not in around:
            return f"output '{value.name}' is made by no node: export it anew"
    return None


def order_error(graph: onnx.GraphProto) -> str | None:
    """Return a node that waits for its own result; the order of the nodes in the file does not matter."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in _reads(node) if name in maker} for node in graph.node]
    readers: list[list[int]] = [[] for _ in waits]
    for index, sources in enumerate(waits):
        for source in sources:
            readers[source].append(index)
    missing = [len(sources) for sources in waits]
    ready = [index for index, count in enumerate(missing) if not count]
    while ready:
        for reader in readers[ready.pop()]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    stuck = next((index for index, count in enumerate(missing) if count), None)
    if stuck is None:
        return None
    return f"a graph must have no cycles, found {label(graph.node[stuck])} waiting for its own result: export it anew"


def idle_error(graph: onnx.GraphProto) -> str | None:
    """Return that all outputs are constants, in the words of a message; None where one may depend on something."""
    maker = {name: node for node in graph.node for name in node.output if name}
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    pending = [value.name for value in graph.output]
    seen = set(pending)
    while pending:
        name = pending.pop()
        node = maker.get(name)
        if name not in stored if node is None else _may_vary(node):
            return None
        reads = {read for read in (() if node is None else node.input) if read} - seen
        seen |= reads
        pending += reads
    return "an output must be computed from an input, found constants alone: export it anew" if graph.output else None


def _may_vary(node: onnx.NodeProto) -> bool:
    """Whether a node may give something else in every run, whatever it reads."""
    return not _is_standard(node) or node.op_type.startswith(_DRAWING) or any(True for _ in bodies(node))


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ONNX_DOMAINS


@lru_cache(maxsize=1024)
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:  # written by ONNX Runtime, without a domain
        return None


def _arity_error(node: onnx.NodeProto, opset: int, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    del shapes
    schema = _schema(node.op_type, opset) if _is_standard(node) and opset >= _OLDEST_HELD else None
    if schema is None:
        return None
    sides = (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    )
    for side, found, least, most in sides:
        if not least <= found <= most:
            expected = f"{least}" if least == most else f"{least} or more" if found < least else f"at most {most}"
            return f"{label(node)} must have {expected} {side}, found {found}: export it anew"
    if schema.min_output and not any(node.output):
        return f"{label(node)} must have an output with a name, found none: export it anew"
    return None


def _body_error(node: onnx.NodeProto, opset: int, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    del opset, shapes
    expected = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}.get(node.op_type, ())
    if not _is_standard(node) or not expected:
        return None
    held = {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH or a.ref_attr_name}
    for name in expected:
        if name not in held:
            return f"{label(node)} must have a graph '{name}', found none: export it anew"
    if node.op_type == "If":
        counts = [len(held[name].output) for name in expected]
        if any(count != len(node.output) for count in counts):
            return (
                f"both branches of {label(node)} must have {len(node.output)} outputs, "
                f"found {counts[0]} and {counts[1]}: export it anew"
            )
    return None


def _convolution_error(node: onnx.NodeProto, opset: int, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    del opset
    if not _is_standard(node) or node.op_type not in ("Conv", "ConvTranspose"):
        return None
    values = {attribute.name: attribute for attribute in node.attribute if not attribute.ref_attr_name}
    group = values["group"].i if "group" in values else 1
    if group < 1:
        return f"{label(node)} must have 1 group or more, found {group}: export it anew"
    weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None:
        return None
    kernel = tuple(values["kernel_shape"].ints) if "kernel_shape" in values else weight[2:]
    if kernel != weight[2:]:
        return (
            f"{label(node)} must have the kernel {list(weight[2:])} of its weight, found {list(kernel)}: export it anew"
        )
    if weight[0] % group:
        return f"{label(node)} must divide {weight[0]} channels into equal groups, found {group}: export it anew"
    return None


_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def _weight_error(node: onnx.NodeProto, opset: int, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    del opset
    if not _is_standard(node) or len(node.input) < 2:
        return None
    shape = shapes.get(node.input[1])
    if node.op_type in _WEIGHTED and shape is not None and 0 in shape:
        return f"{label(node)} must have a weight with values, found one of shape {list(shape)}: export it anew"
    if node.op_type == "Reshape" and shape is not None and len(shape) != 1:
        return f"{label(node)} must be given a list of sizes, found a tensor of shape {list(shape)}: export it anew"
    return None


NODE_CHECKS: tuple[Callable[[onnx.NodeProto, int, Mapping[str, tuple[int, ...]]], str | None], ...] = (
    _arity_error,
    _body_error,
    _convolution_error,
    _weight_error,
)
"""Each takes a node, the opset it is written in and the shapes of the initializers it can see."""
