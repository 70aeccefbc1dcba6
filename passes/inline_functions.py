"""Replace calls of model-local functions by their bodies.

Exporters wrap whole modules in functions of the model; pruning looks inside only once the nodes stand in the main
graph. ONNX's own inliner does the work and renames what would clash. This module keeps the weights out of its way (it
copies the model through bytes, which end at 2 GB), writes the defaults of a function's attributes into its calls (the
inliner forgets them), and adds the operator sets that the bodies import and the model does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import inliner

from onnx_subprune.errors import ModelError

__all__ = ["inline_functions"]

_logger = logging.getLogger(__name__)


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its functions inlined; the same object where it has none.

    A function that needs another version of an operator set than the model imports cannot be inlined; it stays a
    function, with a warning, and what flows through it is not pruned.

    Args:
        model: stays unchanged.

    Raises:
        ModelError: ONNX's inliner refuses the model, for instance because functions call each other in a circle.

    """
    if not model.functions:
        return model
    light = _without_weights(model)
    _write_out_defaults(light)
    try:
        inlined = inliner.inline_local_functions(light)
    except Exception as error:  # the inliner's C++ failures have no common type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"expected functions that can be inlined, found: {reason}; export without them") from error
    del inlined.graph.initializer[:]
    inlined.graph.initializer.extend(model.graph.initializer)
    _keep_called(inlined, light)
    _import_operator_sets(inlined, model)
    for function in inlined.functions:
        _logger.warning("function '%s.%s' cannot be inlined: nothing in it is pruned", function.domain, function.name)
    return inlined


def _keep_called(inlined: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Put back the functions that those which stay still call: the inliner takes them for done with."""
    originals = {_key(function): function for function in model.functions}
    present = {_key(function) for function in inlined.functions}
    pending = list(inlined.functions)
    while pending:
        for node in _with_bodies(pending.pop().node):
            called = (node.domain, node.op_type, node.overload)
            if called in originals and called not in present:
                present.add(called)
                inlined.functions.append(originals[called])
                pending.append(originals[called])


def _key(function: onnx.FunctionProto) -> tuple[str, str, str]:
    return function.domain, function.name, function.overload


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose initializers have names, types and shapes but no values."""
    light = onnx.ModelProto()
    _copy_fields(model, light, without="graph")
    _copy_fields(model.graph, light.graph, without="initializer")
    for tensor in model.graph.initializer:
        light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return light


def _write_out_defaults(model: onnx.ModelProto) -> None:
    """Give every call the attributes it leaves to the function's defaults."""
    defaults = {_key(function): list(function.attribute_proto) for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _with_bodies(nodes):
            given = {attribute.name for attribute in node.attribute}
            missing = defaults.get((node.domain, node.op_type, node.overload), [])
            node.attribute.extend(attribute for attribute in missing if attribute.name not in given)


def _with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _with_bodies(body.node)


def _copy_fields(source: Any, target: Any, *, without: str) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == without:
            continue
        if hasattr(value, "MergeFrom"):  # messages and repeated fields
            getattr(target, descriptor.name).MergeFrom(value)
        else:
            setattr(target, descriptor.name, value)


def _import_operator_sets(inlined: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Add the operator sets that only the functions imported."""
    known = {entry.domain for entry in inlined.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain not in known:
                known.add(entry.domain)
                inlined.opset_import.add(domain=entry.domain, version=entry.version)
