"""ONNX Runtime sessions: inputs as values, sessions that really run where they were asked to, shapes made concrete.

ONNX Runtime falls back to the CPU without saying so when a provider cannot be loaded; a session opened here either
runs on every provider that was named or is an error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.model.custom_operators import offer_custom_ops
from onnx_subprune.model.precision import computes_in_bfloat16, in_float32
from onnx_subprune.model.protos import serialised
from onnx_subprune.model.runtime_errors import runtime_reason
from onnx_subprune.model.save import save_model
from onnx_subprune.model.starting import started
from onnx_subprune.model.stored import has_placed, rooted
from onnx_subprune.model.temporary import TemporaryFolder

__all__ = ["InputSpec", "concrete_shapes", "input_specs", "is_failed_run", "open_session", "parse_input_shapes", "run"]

logger = logging.getLogger(__name__)

_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
_SEVERITY_FATAL = 4
_MISFIT = "the inputs do not fit the model: "
_FAILED = "ONNX Runtime failed while running the model: "
_FIRST_WITH_FOLDERS = (1, 21)

# The package has told ONNX Runtime so in the environment; one that was imported before the package has not seen it.
if os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() not in ("", "0", "false"):
    ort.disable_telemetry_events()


@dataclass(frozen=True)
class InputSpec:
    """A graph input that must be fed.

    Attributes:
        name: of the input.
        shape: a size, a symbol, or None where the model says nothing, for each axis.
        dtype: of its elements.

    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[Any]


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """Return the inputs that must be fed, in order: graph inputs that are not initializers.

    Args:
        model: whose inputs are declared.

    Raises:
        ModelError: an input is no tensor, or its rank or element type is not given.

    """
    initial = {tensor.name for tensor in model.graph.initializer}
    initial |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return tuple(_input_spec(value) for value in model.graph.input if value.name not in initial)


def _input_spec(value: onnx.ValueInfoProto) -> InputSpec:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "untyped value"
        raise ModelError(f"input '{value.name}' must be a tensor, found {kind}: such inputs cannot be fed")
    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.UNDEFINED or not tensor.HasField("shape"):
        missing = "element type" if tensor.elem_type == onnx.TensorProto.UNDEFINED else "rank"
        raise ModelError(f"input '{value.name}' has no {missing}: declare its type and shape (dims may be symbolic)")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return InputSpec(value.name, tuple(_dim(dim) for dim in tensor.shape.dim), dtype)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Some exporters write a dynamic axis as -1 or 0, which no tensor can have.
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return str(dim.dim_param) or None


def open_session(
    model: onnx.ModelProto | str | os.PathLike[str],
    providers: Sequence[str] = ("cpu",),
    *,
    threads: int | None = None,
    optimise: bool = True,
    profile_to: os.PathLike[str] | None = None,
    packed: bool = False,
    widen: bool = True,
) -> ort.InferenceSession:
    """Open a session of ONNX Runtime that runs on every provider that was named, and prints nothing.

    Args:
        model: a message, or the path of a file.
        providers: the most wanted first: `cpu`, `cuda` ..., or ONNX Runtime's full names.
        threads: intra-op threads; None for the runtime's own choice.
        optimise: whether the runtime may rewrite the graph; otherwise it runs as written.
        profile_to: start of the name of a file for the time of every node, which `end_profiling` of the session writes.
        packed: whether weights that stay in files are laid out for the kernels, as those of other models are: a copy
            in memory, for operators that run faster. Otherwise the runtime maps the files.
        widen: whether a message that computes in bfloat16 runs as its float32 twin; otherwise as it is, to be timed.

    Raises:
        OptionError: a provider is unknown or did not load, or `threads` is below 1.
        ModelError: ONNX Runtime refuses the model.

    """
    wanted = _full_names(providers)
    options = _session_options(threads, optimise=optimise, profile_to=profile_to)
    if not isinstance(model, onnx.ModelProto):
        return started(os.fspath(model), options, wanted)
    if computes_in_bfloat16(model):
        if not widen:
            return _open_to_time(model, options, wanted, packed=packed)
        model = in_float32(model)
    return _open(model, options, wanted, packed=packed)


def _open(
    model: onnx.ModelProto, options: ort.SessionOptions, wanted: list[str], *, packed: bool
) -> ort.InferenceSession:
    placed = has_placed(model)
    data = serialised(rooted(model) if placed else model)
    if data is None:
        with TemporaryFolder() as folder:
            return started(_spilled(model, folder), options, wanted)
    if placed:
        _map_files(options, packed=packed)
    return started(data, options, wanted)


def _open_to_time(
    model: onnx.ModelProto, options: ort.SessionOptions, wanted: list[str], *, packed: bool
) -> ort.InferenceSession:
    """Open a network of bfloat16 as it is written: how long its twin takes says nothing about it."""
    ends = (*model.graph.input, *model.graph.output)
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for value in ends):
        raise _untimed("NumPy, which feeds it, has no such type")
    try:
        return _open(model, options, wanted, packed=packed)
    except ModelError as error:
        raise _untimed(f"ONNX Runtime {ort.__version__} does not run that on {', '.join(wanted)}") from error


def _untimed(reason: str) -> ModelError:
    return ModelError(
        f"expected a network that can be timed, found one that computes in bfloat16: {reason}; time it where it runs"
    )


def _map_files(options: ort.SessionOptions, *, packed: bool) -> None:
    """Let ORT read external data from anywhere below the root folder, and use it where it lies."""
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < _FIRST_WITH_FOLDERS:
        raise ModelError(
            f"a model with this much external data needs onnxruntime 1.21 or newer, found {ort.__version__}: update it"
        )
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/")
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")


def _spilled(model: onnx.ModelProto, folder: Path) -> str:
    # A serialised proto cannot pass 2 GB, so ORT must read the weights from a file beside it.
    path = folder / "model.onnx"
    save_model(model, path)
    return os.fspath(path)


def _full_names(providers: Sequence[str]) -> list[str]:
    if isinstance(providers, str) or not providers:
        raise OptionError(f"providers must be a non-empty list of names such as cpu or cuda, found {providers!r}")
    available = ort.get_available_providers()
    names = [_SHORT_NAMES.get(name.lower(), name) for name in providers]
    for given, name in zip(providers, names, strict=True):
        if name not in available:
            raise OptionError(
                f"provider '{given}' is not in this onnxruntime; it has: {', '.join(available)}; "
                "`onnx-subprune doctor` says which of them load here"
            )
    return list(dict.fromkeys(names))


def _session_options(threads: int | None, *, optimise: bool, profile_to: os.PathLike[str] | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Spinning threads of an idle session slow every other session of the process, and with it any comparison.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # What goes wrong is raised as well. The second is for threads and providers, which belong to no session.
    options.log_severity_level = _SEVERITY_FATAL
    ort.set_default_logger_severity(_SEVERITY_FATAL)
    offer_custom_ops(options)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profile_to)
    if threads is not None:
        if threads < 1:
            raise OptionError(f"threads must be at least 1, found {threads}")
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def run(
    session: ort.InferenceSession,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str] | None = None,
    *,
    seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """Run a session once and return the values of its outputs by name.

    Args:
        session: of the model.
        feeds: an array for each input, by name.
        outputs: the names of the outputs to fetch; None for all.
        seconds: after which the run is given up: a loop may be one without end.

    Raises:
        DataError: the feeds do not fit the inputs.
        ModelError: the model fails on them, or takes longer.

    """
    names = [output.name for output in session.get_outputs()] if outputs is None else list(outputs)
    # Sessions run networks of bfloat16 as their float32 twins.
    # A scalar may have come as a number of NumPy, which the runtime does not take for an array.
    arrays = {name: np.asarray(x) for name, x in feeds.items()}
    given = {name: x.astype(np.float32) if x.dtype.name == "bfloat16" else x for name, x in arrays.items()}
    try:
        with _limited(seconds) as options:
            values = session.run(names, given, options)
    except (ort_errors.InvalidArgument, ValueError) as error:
        raise DataError(f"{_MISFIT}{runtime_reason(error)}") from error
    except (ort_errors.Fail, ort_errors.RuntimeException, ort_errors.NotImplemented) as error:
        raise ModelError(f"{_FAILED}{runtime_reason(error)}") from error
    except RuntimeError as error:
        # This comes from the way between NumPy and the runtime.
        _refuse_bfloat16(session, error)
        raise
    return dict(zip(names, values, strict=True))


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[ort.RunOptions]:
    """Give options of a run that ends, as a failure, after so many seconds."""
    options = ort.RunOptions()
    # What goes wrong is raised, and need not be on stderr as well.
    options.log_severity_level = _SEVERITY_FATAL
    timer = None if seconds is None else threading.Timer(seconds, setattr, (options, "terminate", True))
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield options
    finally:
        if timer is not None:
            timer.cancel()


def is_failed_run(error: BaseException) -> bool:
    """Whether an error is that of a run (`run`): the model was opened, and refused its inputs.

    Args:
        error: of this package.

    """
    return isinstance(error, DataError | ModelError) and str(error).startswith((_MISFIT, _FAILED))


def _refuse_bfloat16(session: ort.InferenceSession, error: RuntimeError) -> None:
    for value in (*session.get_inputs(), *session.get_outputs()):
        if value.type == "tensor(bfloat16)":
            raise ModelError(
                f"tensor '{value.name}' expected of a type that NumPy knows, found bfloat16; let the model take and "
                "give float32 (bfloat16 weights may stay)"
            ) from error


def concrete_shapes(
    specs: Iterable[InputSpec], overrides: Mapping[str, Sequence[int]] | None = None, default: int = 1
) -> dict[str, tuple[int, ...]]:
    """Return a shape without unknowns for each input.

    Args:
        specs: the inputs of a model.
        overrides: shapes by input name.
        default: the size of dynamic axes of inputs for which no shape is given.

    Raises:
        OptionError: an unknown input name, another rank, or a size that contradicts a fixed one.

    >>> specs = [InputSpec("ids", ("batch", "length"), np.dtype(np.int64)), InputSpec("x", (None, 3), np.dtype("f"))]
    >>> concrete_shapes(specs, {"ids": (2, 7)})
    {'ids': (2, 7), 'x': (1, 3)}

    """
    wanted = dict(overrides or {})
    by_name = {spec.name: spec for spec in specs}
    for name in wanted:
        if name not in by_name:
            raise OptionError(
                f"input shape given for '{name}', but the model's inputs are: {', '.join(by_name)}; name one of these"
            )
    return {name: _concrete(spec, wanted.get(name), default) for name, spec in by_name.items()}


def _concrete(spec: InputSpec, override: Sequence[int] | None, default: int) -> tuple[int, ...]:
    if override is None:
        return tuple(dim if isinstance(dim, int) else default for dim in spec.shape)
    declared = ",".join("?" if dim is None else str(dim) for dim in spec.shape)
    given = ",".join(str(dim) for dim in override)
    fits = len(override) == len(spec.shape) and all(
        size == dim or not isinstance(dim, int) for size, dim in zip(override, spec.shape, strict=True)
    )
    if not fits:
        raise OptionError(
            f"input '{spec.name}' has shape {declared} in the model, found {given}: give a shape that fits"
        )
    return tuple(int(size) for size in override)


def parse_input_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read shapes written as `name:1,3,224,224`.

    Args:
        texts: a name and a shape each; the name may itself hold colons.

    Raises:
        OptionError: a text of another form, a size below 1, or a name given twice.

    >>> parse_input_shapes(["pixels:1,3,224,224", "serving:mask:8"])
    {'pixels': (1, 3, 224, 224), 'serving:mask': (8,)}

    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, dims = text.rpartition(":")
        if not colon or not name or not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*|\s*", dims):
            raise OptionError(f"input shape must look like x:1,3,224,224, found '{text}'")
        if name in shapes:
            raise OptionError(f"input shape given twice for '{name}': keep one of them")
        shapes[name] = tuple(int(dim) for dim in dims.split(",") if dim.strip())
    return shapes
