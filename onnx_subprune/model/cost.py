"""What a model costs: multiply-accumulate operations (MACs), parameters, bytes.

MACs follow from shapes alone (`products`).

Bodies count at the sizes they have in one run: that of a Loop or Scan as often as it ran there, an If the dearer of its
branches, whichever was taken. Where the model does not run, or not within a minute, a Loop counts once, at the sizes
that ONNX infers.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from onnx_subprune.errors import ModelError, UserError
from onnx_subprune.model.body_shapes import BodyShapes, body_key, is_loop, shapes_of_all_branches
from onnx_subprune.model.made_inputs import BETTER_INPUTS, made_inputs, made_shapes, plausible_shapes
from onnx_subprune.model.products import Shape, needed_tensors, product_of
from onnx_subprune.model.protos import (
    assign,
    bodies,
    constant_tensor,
    estimated_bytes,
    graphs,
    tensor_bytes,
)
from onnx_subprune.model.runtime_errors import runtime_reason
from onnx_subprune.model.session import concrete_shapes, input_specs, is_failed_run, open_session, run

__all__ = ["Cost", "measure_cost", "node_macs", "operator_counts", "parameter_count", "runnable_shapes"]

logger = logging.getLogger(__name__)

_LARGEST_SHAPE_CONSTANT = 4096  # bytes; larger initializers are weights; shape inference needs only their dims
_FLOATS = frozenset(
    number
    for name, number in onnx.TensorProto.DataType.items()
    if name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE") or name.startswith(("FLOAT8", "FLOAT4"))
)


@dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        macs: multiply-accumulates of one inference.
        parameters: elements of float weights with at least one axis.
        bytes: on the disk.

    """

    macs: int
    parameters: int
    bytes: int


def measure_cost(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> Cost:
    """Return what a model costs for inputs of given shapes.

    Args:
        model: local functions count where they are called.
        input_shapes: by input name; a dynamic axis of an input that is not named counts as 1, or as empty where it
            holds the past.
        values: inputs by name; one may steer sizes by its value. Made up where not given, or of another shape.

    Raises:
        OptionError: a shape does not fit its input.
        ModelError: a shape that the MACs need cannot be found.

    >>> from onnx import parser
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x, float[3, 5] w) => (y) { y = MatMul(x, w) }'
    >>> measure_cost(parser.parse_model(text), {"x": (2, 3)}).macs
    30

    """
    macs = sum(node_macs(model, input_shapes, values).values())
    return Cost(macs, parameter_count(model), estimated_bytes(model))


def parameter_count(model: onnx.ModelProto) -> int:
    """Count the elements of float weights; equal ones of one name, as two bodies may both hold them, count once.

    Args:
        model: its bodies and local functions are counted too.

    """
    held = list(graphs(model.graph))
    stored = [(tensor.name, tensor) for graph in held for tensor in graph.initializer]
    nodes = [node for graph in held for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    stored += [(node.output[0], tensor) for node in nodes if (tensor := constant_tensor(node)) is not None]
    sizes = [tensor.dims for tensor in _distinct(stored) if tensor.data_type in _FLOATS]
    sparse = [tensor for graph in held for tensor in graph.sparse_initializer]
    sizes += [tensor.dims for tensor in sparse if tensor.values.data_type in _FLOATS]
    return sum(math.prod(dims) for dims in sizes if dims)


def _distinct(stored: Sequence[tuple[str, onnx.TensorProto]]) -> list[onnx.TensorProto]:
    by_name: dict[str, list[onnx.TensorProto]] = {}
    for name, tensor in stored:
        alike = by_name.setdefault(name, [])
        if all(tensor != other for other in alike):
            alike.append(tensor)
    return [tensor for alike in by_name.values() for tensor in alike]


def node_macs(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, int]:
    """Return the MACs of every node that has any, by the name of its first output; local functions are inlined.

    Shapes come from ONNX shape inference and, where that does not reach, from one run: on `values`, or made-up inputs.

    Args:
        model: see `measure_cost`.
        input_shapes: see `measure_cost`.
        values: see `measure_cost`.

    Raises:
        OptionError: a shape does not fit its input.
        ModelError: a shape that the MACs need cannot be found.

    """
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    fed = made_shapes(input_specs(plain), input_shapes)
    skeleton = _skeleton(plain, fed)
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    known = _known_shapes(inferred)
    feeds = _feeds(plain, fed, values)
    unknown = [name for node in inferred.node for name in needed_tensors(node) if name not in known]
    if unknown:
        known |= _observed_shapes(plain, skeleton, feeds, list(dict.fromkeys(unknown)))
    count = _Count(_observed_in_bodies(plain, feeds) if _asks_for_a_run(inferred, known) else {})
    macs = {node.output[0]: count.node(node, known) for node in inferred.node if node.output}
    return {name: count for name, count in macs.items() if count}


def _feeds(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], values: Mapping[str, NDArray[Any]] | None
) -> dict[str, NDArray[Any]]:
    """Return the given inputs that are of these shapes, and others made up."""
    given = {name: value for name, value in (values or {}).items() if value.shape == shapes.get(name)}
    return made_inputs(input_specs(model), shapes, seed=None) | _first_steps(model.graph, shapes) | given


def _skeleton(model: onnx.ModelProto, fed: Mapping[str, Shape]) -> onnx.ModelProto:
    """Copy `model` with concrete inputs, without old shapes, and with weights as inputs so that none is copied."""
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            assign(light, field.name, value)
    light.graph.name = "skeleton"
    light.graph.node.extend(model.graph.node)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    light.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    for value in model.graph.input:
        if value.name in fed:
            kind = value.type.tensor_type.elem_type
            light.graph.input.append(onnx.helper.make_tensor_value_info(value.name, kind, fed[value.name]))
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) > _LARGEST_SHAPE_CONSTANT:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    for inner in graphs(light.graph):
        del inner.value_info[:]
    return light


def _known_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {tensor.values.name: tuple(tensor.dims) for tensor in graph.sparse_initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        message = value.type.tensor_type
        if message.HasField("shape") and all(dim.HasField("dim_value") for dim in message.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in message.shape.dim)
    return shapes


def _observed_shapes(
    model: onnx.ModelProto, skeleton: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, Shape]:
    try:
        # Without its weights the model opens many times faster, but some kernels want theirs constant.
        return _shapes_in_run(skeleton, feeds, names)
    except UserError:
        logger.debug("the model without its weights does not run: running it with them")
    try:
        return _shapes_in_run(model, feeds, names)
    except UserError as error:
        raise ModelError(
            f"the shape of '{names[0]}' must be known to count MACs, a run failed: {runtime_reason(error)}; "
            f"{BETTER_INPUTS}"
        ) from error


def _shapes_in_run(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, Shape]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    # Inputs that are not fed are the weights that the skeleton leaves out.
    weights = {spec.name: spec for spec in input_specs(probe) if spec.name not in feeds}
    zeros = {name: np.zeros(shape, weights[name].dtype) for name, shape in concrete_shapes(weights.values()).items()}
    values = run(open_session(probe, optimise=False), {**feeds, **zeros})
    # An output may be a sequence, which has no shape.
    return {name: np.shape(value) if isinstance(value, np.ndarray) else () for name, value in values.items()}


def _asks_for_a_run(graph: onnx.GraphProto, known: Mapping[str, Shape], *, repeated: bool = False) -> bool:
    """Whether a body holds a product of unknown shapes, or one that runs who knows how often."""
    for node in graph.node:
        for body in bodies(node):
            inner, again = {**known, **_known_shapes(body)}, repeated or is_loop(node)
            products = [names for each in body.node if (names := needed_tensors(each))]
            if products and (again or any(name not in inner for names in products for name in names)):
                return True
            if _asks_for_a_run(body, inner, repeated=again):
                return True
    return False


def _first_steps(graph: onnx.GraphProto, fed: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    """Return inputs with which loops run once whose trip count or condition is an input."""
    loops = [node for node in graph.node if node.op_type == "Loop"]
    steps = {name: kind for node in loops for name, kind in zip(node.input, (np.int64, np.bool_), strict=False)}
    return {name: np.ones(fed[name], kind) for name, kind in steps.items() if name in fed}


def _observed_in_bodies(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> BodyShapes:
    try:
        return shapes_of_all_branches(model, feeds, needed_tensors)
    except UserError as error:
        logger.info("bodies are counted by the shapes that ONNX infers: a run failed (%s)", error)
        return {}


@dataclass(frozen=True)
class _Count:
    """Counts MACs, with the shapes that were seen in bodies."""

    seen: BodyShapes

    def node(self, node: onnx.NodeProto, known: Mapping[str, Shape], key: str = "", *, repeated: bool = False) -> int:
        """Return the MACs of a node; `key` is that of the body it stands in, which may be `repeated`."""
        product = product_of(node)
        if product is not None:
            return product.macs(node, known)
        keys = [body_key(key, node, place) for place, _ in enumerate(bodies(node))]
        # Within a loop both branches of an If may have run, each as often as was seen.
        as_seen = repeated and any(ran.startswith(tuple(keys)) for ran in self.seen)
        inside = [
            self._body(body, known, own, self.seen.get(own, () if as_seen else ({},)), repeated or is_loop(node))
            for own, body in zip(keys, bodies(node), strict=True)
        ]
        return max(inside, default=0) if node.op_type == "If" and not as_seen else sum(inside)

    def _body(
        self,
        body: onnx.GraphProto,
        outer: Mapping[str, Shape],
        key: str,
        runs: Sequence[Mapping[str, Shape]],
        repeated: bool,
    ) -> int:
        known = {**outer, **_known_shapes(body)}
        total = 0
        for node in body.node:
            missing = any(name not in known and name not in shapes for shapes in runs for name in needed_tensors(node))
            if product_of(node) is None:
                total += self.node(node, known, key, repeated=repeated)
            elif missing:
                logger.warning(
                    "MACs of %s '%s' in a body do not count: its shapes are not known", node.op_type, node.output[0]
                )
            else:
                total += sum(self.node(node, {**known, **shapes}) for shapes in runs)
        return total


def runnable_shapes(
    model: onnx.ModelProto,
    given: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Shape]:
    """Return the first plausible shapes of all inputs with which the model runs.

    Where it runs with none, as one with operators that ONNX Runtime does not know, they are the first with which MACs
    can be counted; the last where there are none either.

    Args:
        model: whose inputs may have open axes.
        given: shapes by input name, which stay.
        values: see `measure_cost`.

    Raises:
        OptionError: a shape does not fit its input.

    """
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    candidates = list(plausible_shapes(input_specs(plain), given))
    # Nothing to choose from, nothing to run.
    reason = None
    for shapes in candidates if len(candidates) > 1 else []:
        try:
            _observed_shapes(plain, _skeleton(plain, shapes), _feeds(plain, shapes, values), _made_outputs(plain))
        except ModelError as error:
            logger.info("the model does not run with inputs of shapes %s: %s", shapes, error)
            if error.__cause__ is None or not is_failed_run(error.__cause__):
                break  # it does not open, whatever the shapes
            reason = runtime_reason(error.__cause__)
        else:
            return shapes
    for shapes in candidates[:-1]:
        with contextlib.suppress(ModelError):
            node_macs(plain, shapes, values)
            if reason is not None:
                logger.warning("the model refuses the inputs made up for it: %s; %s", reason, BETTER_INPUTS)
            return shapes
    # What a network says of large inputs tells more than that others are too small.
    return candidates[-1]


def _made_outputs(model: onnx.ModelProto) -> list[str]:
    """Return the names of the outputs, which nodes make."""
    made = {name for node in model.graph.node for name in node.output}
    return [value.name for value in model.graph.output if value.name in made]


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes of each operator a graph has, by the operator's name.

    Args:
        model: bodies of its nodes are not looked into.

    >>> from onnx import parser
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (y) { a = Relu(x) b = Abs(a) y = Relu(b) }'
    >>> operator_counts(parser.parse_model(text))
    {'Abs': 1, 'Relu': 2}

    """
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
