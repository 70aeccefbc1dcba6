"""Models: load and save with full fidelity, surgery, ONNX Runtime sessions, cost."""

from onnx_subprune.model.atomic import atomic_write, check_regular
from onnx_subprune.model.cost import Cost, measure_cost, node_macs, operator_counts, runnable_shapes
from onnx_subprune.model.fields import array_of, attribute_of, initializer
from onnx_subprune.model.identity import fingerprint
from onnx_subprune.model.load import external_files, load_model
from onnx_subprune.model.overridable import (
    given_names,
    list_initializers,
    overridable_initializers,
    overridable_warnings,
    without_overridable,
)
from onnx_subprune.model.precision import has_half, in_float32, rounded_once_more, widened
from onnx_subprune.model.runtime import Runtime
from onnx_subprune.model.save import check_writable, model_bytes, save_model
from onnx_subprune.model.session import (
    InputSpec,
    concrete_shapes,
    input_specs,
    open_session,
    parse_input_shapes,
    run,
)
from onnx_subprune.model.stored import Scratch, constant_values, has_placed, values_of, with_placed_as_inputs
from onnx_subprune.model.surgery import quiet, to_graph, to_model

__all__ = [
    "Cost",
    "InputSpec",
    "Runtime",
    "Scratch",
    "array_of",
    "atomic_write",
    "attribute_of",
    "check_regular",
    "check_writable",
    "concrete_shapes",
    "constant_values",
    "external_files",
    "fingerprint",
    "given_names",
    "has_half",
    "has_placed",
    "in_float32",
    "initializer",
    "input_specs",
    "list_initializers",
    "load_model",
    "measure_cost",
    "model_bytes",
    "node_macs",
    "open_session",
    "operator_counts",
    "overridable_initializers",
    "overridable_warnings",
    "parse_input_shapes",
    "quiet",
    "rounded_once_more",
    "run",
    "runnable_shapes",
    "save_model",
    "to_graph",
    "to_model",
    "values_of",
    "widened",
    "with_placed_as_inputs",
    "without_overridable",
]
