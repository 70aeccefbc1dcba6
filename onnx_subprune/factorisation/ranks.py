"""The ranks that layers are written at: the spectra of their outputs, and a budget over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune import budget, subspace
from onnx_subprune.calibration import Gram, Statistics, Tap
from onnx_subprune.errors import TargetError
from onnx_subprune.model import constant_values, node_macs
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options
from onnx_subprune.structure import Layer
from onnx_subprune.subspace import Spectrum

__all__ = ["TARGETS", "RankedLayer", "allocate_ranks", "spectrum_of", "tap_of_layer"]

TARGETS = ("macs", "params", "units", "variance")


@dataclass(frozen=True)
class RankedLayer:
    """A layer and the rank that was chosen for it.

    Attributes:
        name: of its node.
        outputs: values it gives at one position.
        features: products in each of them.
        macs: of the dense layer.
        most: the largest rank that takes fewer.
        rank: of the two layers in its place; None where it stays as it is.
        share: of its outputs' variance that is kept, 1 where it stays.

    """

    name: str
    outputs: int
    features: int
    macs: int
    most: int
    rank: int | None
    share: float

    @property
    def macs_kept(self) -> int:
        """MACs of the layer as it is written now.

        >>> RankedLayer("fc", outputs=8, features=24, macs=192, most=5, rank=3, share=0.9).macs_kept
        96

        """
        if self.rank is None:
            return self.macs
        return self.macs // (self.features * self.outputs) * self.rank * (self.features + self.outputs)

    def parameters_saved(self, biases: int) -> int:
        """Return how many parameters fewer the two layers have than the dense one.

        Args:
            biases: values of the bias that the second layer needs and the dense one does not have.

        Returns:
            0 where the layer stays as it is. For rank r, d features and o outputs it is o d - r (o + d) - biases.

        >>> RankedLayer("fc", outputs=8, features=24, macs=192, most=5, rank=3, share=0.9).parameters_saved(8)
        88

        """
        if self.rank is None:
            return 0
        return self.features * self.outputs - self.rank * (self.features + self.outputs) - biases


def tap_of_layer(layer: Layer) -> Tap:
    """Return where the statistics of a layer are taken: at its inputs where these are fewer, else at its outputs.

    Args:
        layer: that can be factorised.

    """
    return Tap(layer.consumer.source, layer.consumer.axis) if layer.narrow else Tap(*layer.output)


def spectrum_of(layer: Layer, statistics: Statistics) -> Spectrum:
    """Return the principal components of a layer's outputs.

    Args:
        layer: that can be factorised.
        statistics: with those of its tap.

    """
    gram: Gram = statistics.grams[tap_of_layer(layer).key]
    if layer.narrow:
        return subspace.input_spectrum(layer.matrix(constant_values), gram.matrix[0])
    # The node gives alpha W x + bias: the directions are those of W x, and the mean is put back to its scale.
    spectrum = subspace.output_spectrum(gram.matrix[0], layer.bias(constant_values))
    return replace(spectrum, mean=spectrum.mean / layer.alpha)


def allocate_ranks(
    analysis: Analysis, layers: Sequence[Layer], spectra: Mapping[str, Spectrum], options: Options
) -> tuple[RankedLayer, ...]:
    """Find the ranks that meet the target; the last step of every curve is the dense layer.

    Args:
        analysis: of the dense network.
        layers: that can be factorised.
        spectra: of their outputs, by name.
        options: the target, and the multiple that ranks keep to.

    Raises:
        TargetError: not even layers of rank 1 meet the target.

    """
    shares = {layer.name: subspace.share_of_variance(spectra[layer.name], range(layer.most + 1)) for layer in layers}
    curves = [_curve(layer, shares[layer.name], options.multiple or 1) for layer in layers]
    node_costs = node_macs(analysis.normalised, analysis.input_shapes, analysis.sample)
    macs = {layer.name: node_costs[layer.output[0]] for layer in layers}

    def ranked(steps: Mapping[str, int]) -> tuple[RankedLayer, ...]:
        return tuple(_ranked(layer, steps[layer.name], macs[layer.name], shares[layer.name]) for layer in layers)

    if options.target.kind == "units":
        return ranked({layer.name: _rank_at_cost(layer, options) for layer in layers})
    if options.target.kind == "variance":
        return ranked(budget.variance(curves, options.target.value))
    biases = {layer.name: 0 if layer.spare else layer.outputs for layer in layers}
    outputs = {layer.name: layer.output[0] for layer in layers}
    normalised, dense = analysis.measure_cost(analysis.normalised), analysis.cost

    def cost(steps: Mapping[str, int]) -> float:
        if options.target.kind == "macs":
            kept = {outputs[layer.name]: layer.macs_kept for layer in ranked(steps)}
            return analysis.structure.dearest(node_costs | kept) / dense.macs
        saved = sum(layer.parameters_saved(biases[layer.name]) for layer in ranked(steps))
        return (normalised.parameters - saved) / dense.parameters

    try:
        return ranked(budget.cheapest_cutoff(curves, cost, options.target.value).counts)
    except TargetError as error:
        raise options.target.out_of_reach("layers of rank 1", error.nearest) from None


def _curve(layer: Layer, share: np.ndarray, round_to: int) -> budget.Curve:
    size = layer.most + 1
    return budget.Curve(layer.name, size, np.arange(size), np.append(share, 1.0), round_to=round_to)


def _rank_at_cost(layer: Layer, options: Options) -> int:
    """Return the rank at which a layer keeps the target's fraction of its own cost."""
    fraction, size = options.target.value, layer.most + 1
    if fraction == 1.0:
        return size
    rank = int(fraction * layer.features * layer.outputs / (layer.features + layer.outputs) + 1e-9)
    multiple = options.multiple or 1
    return max(1, min(size, rank // multiple * multiple))


def _ranked(layer: Layer, step: int, macs: int, share: np.ndarray) -> RankedLayer:
    rank, kept = (None, 1.0) if step > layer.most else (step, float(share[step]))
    return RankedLayer(layer.name, layer.outputs, layer.features, macs, layer.most, rank, kept)
