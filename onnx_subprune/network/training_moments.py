"""Whether inputs look like those that a network was trained on, as its first BatchNormalization remembers them.

The running mean and variance of a BatchNormalization are those of its input in training. Where calibration inputs give
others, they were scaled or normalised in another way: pixels of 0..255 for a network of 0..1 vary 255 times as much.
What is compared is the median over channels: single channels may be dead, or see little of a few samples. A network
whose BatchNormalizations were folded into its convolutions remembers nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset, expose
from onnx_subprune.errors import ModelError
from onnx_subprune.model import Runtime, array_of, input_specs, run
from onnx_subprune.model.protos import ONNX_DOMAINS, constant_tensor

__all__ = ["unlike_training"]

_logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

_SAMPLES = 64
_FEWEST_ROWS = 32
# Variances of the demo's own data are 0.98 times those of its training, of photographs in networks for text 0.73.
# Pixels of 0..255 where -1..1 were meant give more than 1,000 times, pixels of 0..1 between 0.04 and 0.2.
_DEVIATION_RATIO = math.sqrt(6.0)
_MEAN_SHIFT = 2.0
_EPSILON = 1e-5
_INPUT, _MEAN, _VARIANCE = 0, 3, 4


@dataclass(frozen=True, eq=False)
class _Remembered:
    """The first BatchNormalization behind some inputs: its name, what it reads, and its running statistics [C]."""

    name: str
    tensor: str
    inputs: tuple[str, ...]
    mean: Array
    variance: Array


class _Moments:
    """Means and variances of the channels of a tensor [N, C, ...], over all else."""

    def __init__(self, channels: int) -> None:
        self.rows = 0
        self._sums, self._squares = np.zeros(channels), np.zeros(channels)

    def add(self, value: Array) -> None:
        """Add the positions of a batch."""
        rows = np.moveaxis(value, 1, -1).reshape(-1, value.shape[1]).astype(np.float64)
        self.rows += len(rows)
        self._sums += rows.sum(axis=0)
        self._squares += np.square(rows).sum(axis=0)

    def finish(self) -> tuple[Array, Array]:
        """Return the means and the variances."""
        mean = self._sums / self.rows
        return mean, np.maximum(self._squares / self.rows - mean * mean, 0.0)


def unlike_training(model: onnx.ModelProto, dataset: Dataset, runtime: Runtime) -> list[str]:
    """Return a warning for each input whose samples do not look like those that the network was trained on.

    Args:
        model: as it was given.
        dataset: calibration samples; the first few are looked at.
        runtime: where the network runs.

    Raises:
        DataError: a sample does not fit the model.

    """
    remembered = list(_first_normalisations(model))
    if not remembered:
        return []
    try:
        moments = _measured(model, dataset, remembered, runtime)
    except ModelError as error:
        _logger.debug("the moments before BatchNormalization were not measured: %s", error)
        return []
    return [line for each, measured in zip(remembered, moments, strict=True) for line in _compared(each, measured)]


def _first_normalisations(model: onnx.ModelProto) -> Iterator[_Remembered]:
    """Yield the first BatchNormalization behind each float input, once."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: tensor for node in model.graph.node if (tensor := constant_tensor(node)) is not None}
    waiting = {spec.name for spec in input_specs(model) if spec.dtype.kind == "f"}
    behind = {name: frozenset((name,)) for name in waiting}
    for node in model.graph.node:
        sources = frozenset[str]().union(*(behind.get(name, frozenset()) for name in node.input))
        behind |= dict.fromkeys(node.output, sources)
        if node.op_type != "BatchNormalization" or node.domain not in ONNX_DOMAINS or not sources & waiting:
            continue
        tensors = [constants.get(name) for name in node.input[_MEAN : _VARIANCE + 1]]
        if len(node.output) == 1 and all(tensor is not None and len(tensor.dims) == 1 for tensor in tensors):
            mean, variance = (array_of(tensor).astype(np.float64) for tensor in tensors if tensor is not None)
            inputs = tuple(sorted(sources & waiting))
            yield _Remembered(node.name or node.output[0], node.input[_INPUT], inputs, mean, variance)
        waiting -= sources


def _measured(
    model: onnx.ModelProto, dataset: Dataset, remembered: Sequence[_Remembered], runtime: Runtime
) -> list[_Moments]:
    """Return the moments of what they read, over the first samples."""
    names = list(dict.fromkeys(each.tensor for each in remembered))
    fed = {value.name for value in model.graph.input}
    fetched = [name for name in names if name not in fed]
    exposed = expose(model, fetched)
    # Nodes that nobody asks for do not run.
    wanted = [output for output in exposed.graph.output if output.name in fetched]
    del exposed.graph.output[:]
    exposed.graph.output.extend(wanted)
    session = runtime.session(exposed) if fetched else None
    moments = {each.tensor: _Moments(len(each.mean)) for each in remembered}
    seen = 0
    for feeds in dataset.batches(min(runtime.batch_size, _SAMPLES)):
        values = feeds | ({} if session is None else run(session, feeds, fetched))
        with np.errstate(all="ignore"):
            for name, sums in moments.items():
                sums.add(values[name])
        seen += dataset.samples_in(feeds)
        if seen >= _SAMPLES:
            break
    return [moments[each.tensor] for each in remembered]


def _compared(remembered: _Remembered, moments: _Moments) -> Iterator[str]:
    """Yield a warning where the moments are not those of the training."""
    if moments.rows < _FEWEST_ROWS:
        return
    with np.errstate(all="ignore"):
        mean, variance = moments.finish()
        deviation = np.sqrt(remembered.variance + _EPSILON)
        times = float(np.sqrt(np.median((variance + _EPSILON) / (remembered.variance + _EPSILON))))
        shift = float(np.median(np.abs(mean - remembered.mean) / deviation))
    _logger.debug("'%s': deviations %.3g times those of the training, means off by %.3g", remembered.name, times, shift)
    if 1 / _DEVIATION_RATIO <= times <= _DEVIATION_RATIO and shift <= _MEAN_SHIFT:
        return
    names = ", ".join(f"'{name}'" for name in remembered.inputs)
    finding = "values are too large to be finite"
    if np.isfinite([times, shift]).all():
        finding = (
            f"channels vary {times:.3g} times as much as in training, and their means are off by {shift:.2g} standard "
            f"deviations (medians of {len(mean)} channels)"
        )
    yield (
        "the samples do not look like those that the network was trained on: at BatchNormalization "
        f"'{remembered.name}', the first behind input {names}, {finding}; scale and normalise inputs as for training"
    )
