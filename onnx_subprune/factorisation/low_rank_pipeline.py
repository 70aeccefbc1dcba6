"""Low-rank factorisation, the baseline that pruning is compared with: layers become two of a smaller rank.

calibrate -> principal components of every layer's outputs -> ranks for the target -> write -> verify

It shares the targets, the budget and the checks of `pipeline`, but it removes no unit, and there is nothing to recover.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnx_subprune import budget, calibration, passes, subspace
from onnx_subprune.calibration import Dataset, Gram, Statistics, Tap
from onnx_subprune.errors import InternalError, OptionError, TargetError
from onnx_subprune.model import Cost, constant_values, measure_cost, model_bytes, node_macs, save_model
from onnx_subprune.network.analysis import Analysis, ModelSource
from onnx_subprune.network.inputs import Feeds, check_statistics, prepare, probe, take_statistics
from onnx_subprune.network.rewrite import factorised
from onnx_subprune.network.verify import TOLERANCE, disagreement, verify
from onnx_subprune.options import AUTO, Options, Target
from onnx_subprune.progress import Watch, begin, phase
from onnx_subprune.structure import Layer, layers_of
from onnx_subprune.subspace import Spectrum

__all__ = ["TARGETS", "Factorisation", "RankedLayer", "calibrate_layers", "factorise"]

TARGETS = ("macs", "params", "units", "variance")


@dataclass(frozen=True)
class RankedLayer:
    """What became of a layer.

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
        """MACs of what is there now."""
        if self.rank is None:
            return self.macs
        return self.macs // (self.features * self.outputs) * self.rank * (self.features + self.outputs)


@dataclass(frozen=True, eq=False)
class Factorisation:
    """A factorised model and how it came about.

    Attributes:
        model: the factorised model.
        target: what was asked for.
        layers: those that can be factorised, in graph order.
        left: why every other node with products was left alone, by name.
        dense: cost of the model as given.
        pruned: cost of the result; both measured on the models themselves.
        statistics: of the calibration.
        analysis: the model taken apart.
        warnings: what the user should know.

    """

    model: onnx.ModelProto
    target: Target
    layers: tuple[RankedLayer, ...]
    left: dict[str, str]
    dense: Cost
    pruned: Cost
    statistics: Statistics
    analysis: Analysis
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, all or nothing; OutputError if that is not possible."""
        save_model(self.model, path)


def factorise(
    model: ModelSource,
    data: Any,
    options: Options | None = None,
    *,
    statistics: Statistics | None = None,
    progress: Watch | None = None,
) -> Factorisation:
    """Write layers as two of a smaller rank until a target is met: a baseline to compare pruning with.

    Args:
        model: a path or a loaded model; it is not changed.
        data: unlabelled calibration inputs, as for `prune`; None with `statistics`.
        options: the target (`units` is the fraction of every layer's own cost), `round_to` for ranks, and globs over
            node and weight names; what concerns units, their order and their recovery is not used.
        statistics: of an earlier `calibrate_layers` of the same model, used instead of `data`.
        progress: called with the name of a phase, the steps done in it and their number (None if unknown).

    Raises:
        ModelError, DataError, OptionError: the input is at fault.
        TargetError: the target cannot be met.
        InternalError: the result failed verification.

    """
    options = options or Options()
    _check_target(options.target)
    _check_round(options)
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    layers, left = _chosen(analysis, options)
    statistics = statistics or _calibrate(analysis, layers, dataset, options, progress)
    _check_fit(statistics, analysis, layers)
    begin(progress, "factorising")
    spectra = {layer.name: _spectrum(layer, statistics) for layer in layers}
    ranked = _allocate(analysis, layers, spectra, options)
    warnings = _thin(layers, ranked, statistics)
    result = _carry_out(analysis, ranked, spectra, probe(analysis, dataset, options))
    dense, pruned = (measure_cost(one, analysis.input_shapes) for one in (analysis.model, result))
    stamp = passes.Stamp(
        f"low-rank {options.target}", dense.macs, pruned.macs, dense.parameters, pruned.parameters, analysis.fingerprint
    )
    passes.write_stamp(result, stamp)
    pruned = replace(pruned, bytes=model_bytes(result))
    return Factorisation(result, options.target, ranked, left, dense, pruned, statistics, analysis, tuple(warnings))


def calibrate_layers(
    model: ModelSource, data: Any, options: Options | None = None, *, progress: Watch | None = None
) -> Statistics:
    """Take the statistics that `factorise` needs, to save them or to use them for several targets.

    Raises:
        ModelError, DataError, OptionError: the input is at fault, or no layer can be factorised.

    """
    options = options or Options()
    analysis, dataset = prepare(model, data, options)
    return _calibrate(analysis, _chosen(analysis, replace(options, ignore=(), only=()))[0], dataset, options, progress)


def _check_target(target: Target) -> None:
    if target.kind not in TARGETS or target.value <= 0.0:
        raise OptionError(
            f"expected {', '.join(TARGETS)} above 0 as the target of a factorisation, found {target}; "
            "for example macs=0.5"
        )


def _check_round(options: Options) -> None:
    if options.round_to == AUTO:
        raise OptionError(f"expected a number to round ranks to, found '{AUTO}', which is for units; for example 8")


def _chosen(analysis: Analysis, options: Options) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers to factorise, and why others are left; a pattern that matches nothing is the user's mistake."""
    layers, left = layers_of(analysis.structure)
    for pattern in (*options.ignore, *options.only):
        if not any(_matches(layer, pattern) for layer in layers):
            names = ", ".join(layer.name for layer in layers[:3]) or "none"
            raise OptionError(
                f"expected '{pattern}' to match a layer that can be factorised or its weight, found none that does; "
                f"names look like {names}"
            )
    left |= {layer.name: "--ignore or --only" for layer in layers if not _is_asked_for(layer, options)}
    layers = [layer for layer in layers if layer.name not in left]
    if not layers:
        raise OptionError(
            "expected at least one Conv, Gemm or MatMul that can be factorised, found none; prune the model instead"
        )
    return layers, left


def _matches(layer: Layer, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (layer.name, layer.consumer.weight.constant.name))


def _is_asked_for(layer: Layer, options: Options) -> bool:
    if any(_matches(layer, pattern) for pattern in options.ignore):
        return False
    return not options.only or any(_matches(layer, pattern) for pattern in options.only)


def _tap(layer: Layer) -> Tap:
    return Tap(layer.consumer.source, layer.consumer.axis) if layer.narrow else Tap(*layer.output)


def _calibrate(
    analysis: Analysis, layers: Sequence[Layer], dataset: Dataset | None, options: Options, progress: Watch | None
) -> Statistics:
    return take_statistics(
        analysis, sorted({_tap(layer) for layer in layers}), dataset, options, phase(progress, "calibrating")
    )


def _check_fit(statistics: Statistics, analysis: Analysis, layers: Sequence[Layer]) -> None:
    advice = "those that `prune` takes are others: calibrate for the factorisation"
    check_statistics(statistics, analysis, [_tap(layer) for layer in layers], advice)


def _spectrum(layer: Layer, statistics: Statistics) -> Spectrum:
    gram: Gram = statistics.grams[_tap(layer).key]
    if layer.narrow:
        return subspace.input_spectrum(layer.matrix(constant_values), gram.matrix[0])
    # The node gives alpha W x + bias: the directions are those of W x, and the mean is put back to its scale.
    spectrum = subspace.output_spectrum(gram.matrix[0], layer.bias(constant_values))
    return replace(spectrum, mean=spectrum.mean / layer.alpha)


def _allocate(
    analysis: Analysis, layers: Sequence[Layer], spectra: Mapping[str, Spectrum], options: Options
) -> tuple[RankedLayer, ...]:
    """Find the ranks that meet the target; the last step of every curve is the dense layer."""
    shares = {one.name: subspace.share_of_variance(spectra[one.name], range(one.most + 1)) for one in layers}
    curves = [_curve(layer, shares[layer.name], options.multiple) for layer in layers]
    macs = node_macs(analysis.normalised, analysis.input_shapes)
    costs = {layer.name: macs[layer.output[0]] for layer in layers}

    def ranked(counts: Mapping[str, int]) -> tuple[RankedLayer, ...]:
        return tuple(_ranked(one, counts[one.name], costs[one.name], shares[one.name]) for one in layers)

    if options.target.kind == "units":
        return ranked({layer.name: _uniform(layer, options) for layer in layers})
    if options.target.kind == "variance":
        return ranked(budget.variance(curves, options.target.value))
    extra = {layer.name: 0 if layer.spare else layer.outputs for layer in layers}
    base, dense = (measure_cost(one, analysis.input_shapes) for one in (analysis.normalised, analysis.model))

    def cost(counts: Mapping[str, int]) -> float:
        if options.target.kind == "macs":
            return (base.macs - sum(one.macs - one.macs_kept for one in ranked(counts))) / dense.macs
        return (base.parameters - sum(_saved(one, extra[one.name]) for one in ranked(counts))) / dense.parameters

    try:
        return ranked(budget.cheapest_cutoff(curves, cost, options.target.value).counts)
    except TargetError as error:
        nearest = math.ceil(error.nearest * 1e4) / 1e4
        raise TargetError(
            f"expected to reach {options.target}, but layers of rank 1 leave {nearest:.4f} of the "
            f"{options.target.kind}; ask for {options.target.kind}={nearest:.4f} or more",
            nearest,
        ) from None


def _curve(layer: Layer, share: np.ndarray, round_to: int) -> budget.Curve:
    size = layer.most + 1
    return budget.Curve(layer.name, size, np.arange(size), np.append(share, 1.0), round_to=round_to)


def _uniform(layer: Layer, options: Options) -> int:
    """Return the rank at which a layer keeps the fraction of its cost."""
    fraction, size = options.target.value, layer.most + 1
    if fraction == 1.0:
        return size
    rank = int(fraction * layer.features * layer.outputs / (layer.features + layer.outputs) + 1e-9)
    return max(1, min(size, rank // options.multiple * options.multiple))


def _ranked(layer: Layer, count: int, macs: int, share: np.ndarray) -> RankedLayer:
    stays = count > layer.most
    rank, kept = (None, 1.0) if stays else (count, float(share[count]))
    return RankedLayer(layer.name, layer.outputs, layer.features, macs, layer.most, rank, kept)


def _saved(layer: RankedLayer, extra: int) -> int:
    """Return the parameters that a layer loses; a new bias costs some."""
    if layer.rank is None:
        return 0
    return layer.features * layer.outputs - layer.rank * (layer.features + layer.outputs) - extra


def _carry_out(
    analysis: Analysis,
    ranked: Sequence[RankedLayer],
    spectra: Mapping[str, Spectrum],
    feeds: Feeds,
) -> onnx.ModelProto:
    """Write and verify."""
    ranks = {layer.name: layer.rank for layer in ranked if layer.rank is not None}
    if not ranks:
        model = onnx.ModelProto()
        model.CopyFrom(analysis.model)
        return model
    _check_structure(analysis, spectra, ranks, feeds)
    model = _written(analysis, spectra, ranks)
    verify(model, analysis.model, feeds)
    return model


def _written(analysis: Analysis, spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> onnx.ModelProto:
    return factorised(analysis, {name: partial(_factors, spectra[name], rank) for name, rank in ranks.items()})


def _factors(spectrum: Spectrum, rank: int, layer: Layer) -> subspace.Factors:
    return subspace.factors(layer.matrix(constant_values), spectrum, rank)


def _check_structure(
    analysis: Analysis, spectra: Mapping[str, Spectrum], names: Mapping[str, int], feeds: Feeds
) -> None:
    """Hold the network with the same layers factorised at their full rank to the dense one."""
    whole = {name: len(spectra[name].variances) for name in names}
    with analysis.scratch.passing() if analysis.scratch is not None else nullcontext():
        if disagreement(_written(analysis, spectra, whole), analysis.model, feeds) > TOLERANCE:
            raise InternalError(
                "the network factorised at full rank was expected to equal the dense one, and does not: its structure "
                "was misread; nothing was written, please report this"
            )


def _thin(layers: Sequence[Layer], ranked: Sequence[RankedLayer], statistics: Statistics) -> list[str]:
    """Return a warning for every layer whose components were found on few rows."""
    pairs = [pair for pair in zip(layers, ranked, strict=True) if pair[1].rank is not None]
    lines = (
        calibration.few_rows(f"'{layer.name}' was factorised", statistics.grams[_tap(layer).key]) for layer, _ in pairs
    )
    return [line for line in lines if line is not None]
