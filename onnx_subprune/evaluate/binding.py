"""A run to be timed: one run of a session on inputs that are where they are needed.

On a device with its own memory, inputs and outputs stand in buffers there, bound once, so that a run copies nothing to
it and nothing back: the time is the model's. On the CPU a session reads NumPy's arrays where they lie; binding them
saves no copy, only the making of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.model import run

__all__ = ["device_of", "runner"]

Array = NDArray[Any]

_DEVICES = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
}


def device_of(session: ort.InferenceSession) -> str:
    """Return where the most wanted provider of a session has its memory: `cuda`, `dml` or `cpu`."""
    return _DEVICES.get(session.get_providers()[0], "cpu")


def runner(
    session: ort.InferenceSession, feeds: Mapping[str, Array], *, bound: bool | None = None
) -> Callable[[], object]:
    """Return a function that runs a session once and returns when the outputs are ready.

    Args:
        session: of the model.
        feeds: an array per input.
        bound: whether inputs and outputs are buffers on the device; None where the device is not the CPU.

    Raises:
        DataError: the feeds do not fit.
        ModelError: the model fails on them.

    """
    run(session, feeds)  # says in one line what is wrong with them
    if not (device_of(session) != "cpu" if bound is None else bound):
        arrays = dict(feeds)
        return lambda: session.run(None, arrays)
    binding = _bound(session, feeds)

    def once() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return once


def _bound(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> Any:
    """Return a binding of the feeds, and of buffers that fit the outputs that they give."""
    device, binding = device_of(session), session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    outputs = [(value.name, device if value.type.startswith("tensor") else "cpu") for value in session.get_outputs()]
    for name, where in outputs:
        binding.bind_output(name, where)
    session.run_with_iobinding(binding)
    values = binding.get_outputs()
    binding.clear_binding_outputs()
    for (name, where), value in zip(outputs, values, strict=True):
        if value.is_tensor():
            binding.bind_ortvalue_output(name, value)
        else:
            binding.bind_output(name, where)
    return binding
