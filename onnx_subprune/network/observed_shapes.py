"""What operators give that neither ONNX nor a rule knows, such as custom ones: seen in one run.

Behind an output of unknown rank no rule can tell anything. A run says the rank, the type and the sizes; the sizes are
taken for those of this run alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx

from onnx_subprune.errors import UserError
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.model.made_inputs import made_inputs
from onnx_subprune.model.protos import ONNX_DOMAINS
from onnx_subprune.structure.rules import RULES

__all__ = ["observe"]

_logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


def observe(
    inferred: onnx.ModelProto, shapes: Shapes, sample: Mapping[str, np.ndarray]
) -> tuple[list[onnx.ValueInfoProto], dict[str, tuple[int, ...]]]:
    """Return types and sizes of the outputs that are not known, of nodes of the main graph without a rule.

    Args:
        inferred: the model with all shapes that ONNX can infer.
        shapes: the size of every input.
        sample: values of inputs by name; made up where missing, or of other sizes.

    Returns:
        A value info for each such output, its axes open, and their sizes in the run by name; nothing where there are
        none, or the model does not run.

    """
    names = _unknown(inferred)
    if not names:
        return [], {}
    feeds = made_inputs(input_specs(inferred), shapes, seed=None)
    feeds |= {name: value for name, value in sample.items() if value.shape == tuple(shapes[name])}
    probe = onnx.ModelProto()
    probe.CopyFrom(inferred)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        values = run(open_session(probe, optimise=False), feeds)
    except UserError as error:
        _logger.info("operators without a rule will block more: a run failed (%s)", error)
        return [], {}
    tensors = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    infos = [_info(name, value) for name, value in tensors.items()]
    return infos, {name: value.shape for name, value in tensors.items()}


def _unknown(inferred: onnx.ModelProto) -> list[str]:
    known = {
        value.name
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return [
        name
        for node in inferred.graph.node
        if node.domain not in ONNX_DOMAINS and (node.domain, node.op_type) not in RULES
        for name in node.output
        if name and name not in known
    ]


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    kind = onnx.TensorProto.STRING if value.dtype.kind in "OU" else onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * value.ndim)
