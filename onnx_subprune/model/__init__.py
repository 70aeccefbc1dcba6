"""Models: load and save with full fidelity, surgery, ONNX Runtime sessions, cost."""

from onnx_subprune.model.atomic import atomic_write, check_regular, together
from onnx_subprune.model.cost import Cost, measure_cost, node_macs, operator_counts, parameter_count, runnable_shapes
from onnx_subprune.model.custom_operators import custom_ops, register_custom_ops
from onnx_subprune.model.data_files import is_data_name
from onnx_subprune.model.fields import array_of, attribute_of, initializer
from onnx_subprune.model.identity import fingerprint
from onnx_subprune.model.load import ModelSource, check_model, external_files, load_model, open_model
from onnx_subprune.model.overridable import (
    given_names,
    list_initializers,
    overridable_initializers,
    overridable_warnings,
    without_overridable,
)
from onnx_subprune.model.precision import computes_in_bfloat16, has_half, in_float32, rounded_once_more, widened
from onnx_subprune.model.runtime import Runtime
from onnx_subprune.model.runtime_errors import runtime_reason
from onnx_subprune.model.save import check_writable, model_bytes, save_model
from onnx_subprune.model.scopes import scopes_of
from onnx_subprune.model.session import (
    InputSpec,
    concrete_shapes,
    input_specs,
    is_failed_run,
    open_session,
    parse_input_shapes,
    run,
)
from onnx_subprune.model.stored import Scratch, constant_values, has_placed, values_of, with_placed_as_inputs
from onnx_subprune.model.surgery import quiet, to_graph, to_model
from onnx_subprune.model.temporary import TemporaryFolder, sweep

__all__ = [
    "Cost",
    "InputSpec",
    "ModelSource",
    "Runtime",
    "Scratch",
    "TemporaryFolder",
    "array_of",
    "atomic_write",
    "attribute_of",
    "check_model",
    "check_regular",
    "check_writable",
    "computes_in_bfloat16",
    "concrete_shapes",
    "constant_values",
    "custom_ops",
    "external_files",
    "fingerprint",
    "given_names",
    "has_half",
    "has_placed",
    "in_float32",
    "initializer",
    "input_specs",
    "is_data_name",
    "is_failed_run",
    "list_initializers",
    "load_model",
    "measure_cost",
    "model_bytes",
    "node_macs",
    "open_model",
    "open_session",
    "operator_counts",
    "overridable_initializers",
    "overridable_warnings",
    "parameter_count",
    "parse_input_shapes",
    "quiet",
    "register_custom_ops",
    "rounded_once_more",
    "run",
    "runnable_shapes",
    "runtime_reason",
    "save_model",
    "scopes_of",
    "sweep",
    "to_graph",
    "to_model",
    "together",
    "values_of",
    "widened",
    "with_placed_as_inputs",
    "without_overridable",
]
