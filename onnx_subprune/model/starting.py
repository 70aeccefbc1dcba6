"""Sessions started: quietly, around a fusion of ONNX Runtime that loses outputs, and with its refusals in one line."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.formatting import printable
from onnx_subprune.model.runtime_errors import runtime_reason
from onnx_subprune.noise import hushed

__all__ = ["started"]

logger = logging.getLogger(__name__)

_CPU = "CPUExecutionProvider"
_UNKNOWN_OPERATOR = "is not a registered function/op"
_FUSED_SUM = "ConvAddActivationFusion"
_LOST_OUTPUT = "Failed to find node output"


def started(source: bytes | str, options: ort.SessionOptions, wanted: list[str]) -> ort.InferenceSession:
    """Return a session that runs on every provider that was named.

    Args:
        source: a serialised model, or the path of one.
        options: of the session.
        wanted: full names of the providers, most wanted first.

    Raises:
        ModelError: the runtime refuses the model.
        OptionError: a provider did not load.

    """
    accelerated = wanted != [_CPU]
    try:
        with _quiet_loading() if accelerated else contextlib.nullcontext():
            session = _session(source, options, wanted)
    except ort_errors.NotImplemented as error:
        names = ", ".join(wanted)
        raise ModelError(
            f"ONNX Runtime {ort.__version__} has no kernel on {names} for a node of the model: "
            f"{runtime_reason(error)}; if it computes in float16 or bfloat16, convert it to float32 (bfloat16 weights "
            "behind a Cast may stay)"
        ) from error
    except Exception as error:
        raise _refusal(error, wanted) from error
    missing = [name for name in wanted if name not in session.get_providers()]
    if missing:
        loaded = ", ".join(session.get_providers())
        raise OptionError(
            f"provider '{missing[0]}' did not load on this machine, ONNX Runtime has: {loaded}; "
            "install its driver and libraries, or ask for another"
        )
    return session


def _session(source: bytes | str, options: ort.SessionOptions, wanted: list[str]) -> ort.InferenceSession:
    """Return a session; where ONNX Runtime fuses a sum with two Convs and loses the output of one, without that fusion.

    That happens where a tensor inside is an output: networks are opened so to be compared, calibrated and fitted.
    """
    try:
        return ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)
    except Exception as error:
        if _LOST_OUTPUT not in str(error):
            raise
        logger.info("opened without %s, which lost an output: %s", _FUSED_SUM, runtime_reason(error))
        return ort.InferenceSession(
            source, options, providers=wanted, enable_fallback=0, disabled_optimizers=[_FUSED_SUM]
        )


def _refusal(error: Exception, wanted: list[str]) -> Exception:
    reason = runtime_reason(error)
    stems = {name: name.removesuffix("ExecutionProvider").lower() for name in wanted if name != _CPU}
    mentioned = [name for name, stem in stems.items() if stem in reason.lower()]
    if mentioned:
        return OptionError(f"provider '{mentioned[0]}' did not load on this machine: {reason}")
    if _UNKNOWN_OPERATOR in reason:
        reason += "; if it is a custom operator, give its library with --custom-ops"
    return ModelError(f"ONNX Runtime {ort.__version__} refuses the model: {reason}")


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep the noise of a provider that cannot be loaded off stdout and stderr: the error raised says it all."""
    with hushed(), contextlib.redirect_stdout(io.StringIO()) as noise:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds the CUDA libraries of NVIDIA's wheels, where installed
        yield
    if noise.getvalue():
        logger.debug("onnxruntime: %s", printable(noise.getvalue().strip()))
