"""Initializers that are graph inputs too.

From IR version 4 on they are defaults, which the caller of the model may replace. Before, every initializer had to be
listed among the inputs, and runtimes treat those as the constants they are.
"""

from __future__ import annotations

import onnx

__all__ = [
    "given_names",
    "list_initializers",
    "overridable_initializers",
    "overridable_warnings",
    "without_overridable",
]

_FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS = 4


def overridable_initializers(model: onnx.ModelProto) -> frozenset[str]:
    """Return the initializers that are graph inputs too: only defaults, which the caller of the model may replace.

    Args:
        model: of any IR version.

    Returns:
        Their names; none before IR version 4.

    """
    if model.ir_version < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS:
        return frozenset()
    return _listed_initializers(model)


def given_names(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors whose values the caller of a model decides: all inputs but those that are constants.

    Args:
        model: of any IR version.

    """
    constants = _listed_initializers(model) - overridable_initializers(model)
    return frozenset(value.name for value in model.graph.input) - constants


def without_overridable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its overridable initializers as constants; the model itself where there are none.

    Args:
        model: left as it is.

    """
    overridable = overridable_initializers(model)
    if not overridable:
        return model
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in overridable]
    del stripped.graph.input[:]
    stripped.graph.input.extend(kept)
    return stripped


def overridable_warnings(model: onnx.ModelProto) -> list[str]:
    """Return a sentence on initializers that stay whole because callers may replace them; none where there are none.

    Args:
        model: of any IR version.

    """
    names = sorted(overridable_initializers(model))
    if not names:
        return []
    return [
        f"{len(names)} weights are inputs with defaults ('{names[0]}'{', ...' if names[1:] else ''}), "
        "which callers may replace, and what reads them is left whole; --strip-initializer-inputs makes them constants"
    ]


def list_initializers(model: onnx.ModelProto, before: onnx.ModelProto) -> onnx.ModelProto:
    """List the initializers of a model of IR version 3 or less among its inputs, and no others; it is changed in place.

    Args:
        model: some of whose initializers came or went.
        before: the same model before that.

    """
    if model.ir_version < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS:
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        gone = _listed_initializers(before) - stored.keys()
        kept = [value for value in model.graph.input if value.name not in gone]
        new = [tensor for name, tensor in stored.items() if name not in {value.name for value in kept}]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in new)
    return model


def _listed_initializers(model: onnx.ModelProto) -> frozenset[str]:
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return frozenset(value.name for value in model.graph.input if value.name in stored)
