"""How much work the fits of a network's layers will be, known from the dense network before anything is fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset, FirstSamples, probe_shapes
from onnx_subprune.model import open_session, run
from onnx_subprune.recovery.exact.constant_nodes import stored_as_initializers
from onnx_subprune.recovery.exact.fused_nodes import names_in, take_apart
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.sample_size import rows_wanted, samples_needed
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.targets import Networks

__all__ = ["FitSize", "FitSizes", "LayerSize"]


@dataclass(frozen=True)
class LayerSize:
    """What one layer is fitted on.

    Attributes:
        features: that one output reads.
        outputs: of all blocks.
        rows: at most.
        blocks: of the weight, each with features and outputs of its own: the groups of a Conv.

    """

    features: int
    outputs: int
    rows: float
    blocks: int = 1


@dataclass(frozen=True)
class FitSize:
    """What one sweep of fits goes through.

    Attributes:
        samples: that both networks are run on.
        layers: that are fitted, with the sizes of the dense network.

    """

    samples: int
    layers: tuple[LayerSize, ...]


class FitSizes:
    """What there is to fit in a network, for any number of samples and rows.

    Args:
        model: the dense network, as fits take it.
        data: calibration samples, of which the first is run.
        settings: where networks run.

    Raises:
        ModelError: the network does not run.

    """

    def __init__(self, model: onnx.ModelProto, data: Dataset, settings: Settings) -> None:
        apart = take_apart(stored_as_initializers(model).model, names_in(model)).model
        linears, _ = find_linears(apart)
        made = {name for node in apart.graph.node for name in node.output}
        self._sizes = {tensor.name: math.prod(tensor.dims) for tensor in apart.graph.initializer}
        # What a fused attention projects is out of sight; it is little beside all else, as are weights made by a chain.
        seen = [linear for linear in linears if linear.output in made and linear.weight in self._sizes]
        self._layers = [(linear.output, linear) for linear in seen]
        self._first = FirstSamples(data, 1)
        feeds = next(iter(data.batches(1)))
        shapes = _shapes_of(apart, [name for name, _ in self._layers], feeds, settings)
        self._networks = Networks(apart, apart, lambda _, value: value, sample_shapes=shapes)
        self._in_one = data.samples_in(feeds)

    def at(self, samples: int, settings: Settings) -> FitSize:
        """Return what one sweep goes through.

        Args:
            samples: of the calibration data.
            settings: how layers are fitted.

        """
        self._first.samples = samples
        together = samples_needed(self._networks, self._layers, self._first, settings) or samples
        return FitSize(together, tuple(self._layer(name, layer, together, settings) for name, layer in self._layers))

    def _layer(self, name: str, layer: Linear, samples: int, settings: Settings) -> LayerSize:
        shape = self._networks.sample_shapes[name]
        width = shape[1] if layer.spatial else shape[-1] * layer.blocks
        positions = math.prod(shape) / max(width, 1) / self._in_one
        features = self._sizes[layer.weight] // max(layer.outputs, 1)
        rows = min(rows_wanted(features, settings), samples * positions)
        return LayerSize(features, layer.outputs, rows, layer.blocks)


def _shapes_of(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, tuple[int, ...]]:
    if not tensors:
        return {}
    probe, names = probe_shapes(model, tensors)
    session = open_session(probe, settings.providers, threads=settings.threads, optimise=False)
    values = run(session, feeds, list(names.values()))
    return {tensor: tuple(int(size) for size in values[name]) for tensor, name in names.items()}
