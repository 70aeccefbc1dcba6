"""Low-rank factorisation, the baseline that pruning is compared with: layers become two of a smaller rank.

calibrate -> principal components of every layer's outputs -> ranks for the target -> write -> verify

It shares the targets, the budget and the checks of `pipeline`, but it removes no unit, and there is nothing to recover.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import onnx

from onnx_subprune import subspace
from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.errors import InternalError, OptionError
from onnx_subprune.evaluate.feeds import made_up
from onnx_subprune.factorisation.ranks import TARGETS, RankedLayer, allocate_ranks, spectrum_of, tap_of_layer
from onnx_subprune.factorisation.result import Factorisation
from onnx_subprune.model import constant_values, has_half, in_float32, widened
from onnx_subprune.network.analysis import Analysis, ModelSource, take_apart
from onnx_subprune.network.finishing import finish
from onnx_subprune.network.input_checks import checked_inputs
from onnx_subprune.network.inputs import Feeds, check_statistics, prepare, probe, take_statistics
from onnx_subprune.network.named_outputs import drop_unread
from onnx_subprune.network.rewrite import dense_copy, factorised
from onnx_subprune.network.selection import check_patterns, is_chosen
from onnx_subprune.network.stamping import stamp
from onnx_subprune.network.tapped_features import few_row_warnings
from onnx_subprune.network.verify import agree, check_normalised, check_sunk, verify
from onnx_subprune.options import AUTO, Options
from onnx_subprune.planning.measured_cost import check_reached
from onnx_subprune.progress import Watch, begin, phase
from onnx_subprune.structure import Layer, layers_of
from onnx_subprune.subspace import Spectrum

__all__ = ["calibrate_layers", "factorise"]

_logger = logging.getLogger(__name__)

_MISREAD = (
    "the network factorised at full rank was expected to equal the dense one, and does not: its structure was misread; "
    "nothing was written, please report this"
)


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
        TargetError: the target cannot be met, or what came out does not meet it.
        InternalError: the result failed verification.

    """
    options = options or Options()
    _check(options)
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    options, cautions = checked_inputs(analysis, dataset, options)
    layers, skipped = _selected_layers(analysis, options)
    feeds = probe(analysis, dataset, options)
    with made_up(made=dataset is None):
        rounding = check_normalised(analysis, feeds)
    statistics = statistics or _calibrate(analysis, layers, dataset, options, progress)
    advice = "those that `prune` takes are others: calibrate for the factorisation"
    check_statistics(statistics, analysis, [tap_of_layer(layer) for layer in layers], advice)
    begin(progress, "factorising")
    spectra = {layer.name: spectrum_of(layer, statistics) for layer in layers}
    ranked = allocate_ranks(analysis, layers, spectra, options)
    taps = {layer.name: tap_of_layer(layer) for layer in layers}
    cut = ((f"'{layer.name}' was factorised", taps[layer.name]) for layer in ranked if layer.rank is not None)
    warnings = [*cautions, *few_row_warnings(statistics, cut)]
    with made_up(made=dataset is None):
        factorised_model = _carry_out(analysis, ranked, spectra, feeds, rounding.tolerance)
    pruned = stamp(factorised_model, analysis, f"low-rank {options.target}")
    check_reached(options.target, analysis.cost, pruned, removes=any(layer.rank is not None for layer in ranked))
    return Factorisation(
        model=factorised_model,
        target=options.target,
        layers=ranked,
        left=skipped,
        dense=analysis.cost,
        pruned=pruned,
        statistics=statistics,
        analysis=analysis,
        warnings=tuple(warnings),
        rounding=rounding,
    )


def calibrate_layers(
    model: ModelSource, data: Any, options: Options | None = None, *, progress: Watch | None = None
) -> Statistics:
    """Take the statistics that `factorise` needs, to save them or to use them for several targets.

    Args:
        model: a path or a loaded model; it is not changed.
        data: unlabelled calibration inputs, as for `prune`.
        options: which samples, and where they run; globs are not used.
        progress: as for `factorise`.

    Raises:
        ModelError, DataError, OptionError: the input is at fault, or no layer can be factorised.

    """
    options = options or Options()
    analysis, dataset = prepare(model, data, options)
    options, warnings = checked_inputs(analysis, dataset, options)
    for line in warnings:
        _logger.warning("%s", line)
    layers, _ = _selected_layers(analysis, replace(options, ignore=(), only=()))
    return _calibrate(analysis, layers, dataset, options, progress)


def _check(options: Options) -> None:
    if options.target.kind not in TARGETS or options.target.value <= 0.0:
        raise OptionError(
            f"expected {', '.join(TARGETS)} above 0 as the target of a factorisation, found {options.target}; "
            "for example macs=0.5"
        )
    if options.round_to == AUTO:
        raise OptionError(f"expected a number to round ranks to, found '{AUTO}', which is for units; for example 8")


def _selected_layers(analysis: Analysis, options: Options) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers to factorise, and why all others are left as they are, by name."""
    layers, skipped = layers_of(analysis.structure)
    names = [layer.name for layer in layers]
    scopes = {name: analysis.structure.scopes.get(name, ()) for name in names}
    modules = [path for name in names for path in scopes[name][-2:-1]]
    kind = "a layer that can be factorised or its weight"
    matches = {layer.name: partial(_matches, layer, scopes[layer.name]) for layer in layers}
    check_patterns(options, lambda pattern: any(one(pattern) for one in matches.values()), kind, names, modules)
    asked_for = {name for name in names if is_chosen(options, matches[name])}
    skipped |= {name: "--ignore or --only" for name in names if name not in asked_for}
    chosen = [layer for layer in layers if layer.name in asked_for]
    if not chosen:
        raise OptionError(
            "expected at least one Conv, Gemm or MatMul that can be factorised, found none; prune the model instead"
        )
    return chosen, skipped


def _matches(layer: Layer, scopes: tuple[str, ...], pattern: str) -> bool:
    names = (layer.name, layer.consumer.weight.constant.name, *scopes)
    return any(fnmatchcase(name, pattern) for name in names)


def _calibrate(
    analysis: Analysis, layers: Sequence[Layer], dataset: Dataset | None, options: Options, progress: Watch | None
) -> Statistics:
    taps = sorted({tap_of_layer(layer) for layer in layers})
    return take_statistics(analysis, taps, dataset, options, phase(progress, "calibrating"))


def _carry_out(
    analysis: Analysis, ranked: Sequence[RankedLayer], spectra: Mapping[str, Spectrum], feeds: Feeds, tolerance: float
) -> onnx.ModelProto:
    """Write the layers at their ranks and verify: at full rank the network must equal the dense one.

    Two factors in half precision round more than the layer that they stand for, and a deep network adds that up: for it
    layers of full rank are written, and held to the dense ones, in float32.
    """
    ranks = {layer.name: layer.rank for layer in ranked if layer.rank is not None}
    if not ranks:
        return dense_copy(analysis)
    full = {name: len(spectra[name].variances) for name in ranks}
    exact = _in_float32(analysis)
    whole = exact.model if exact.hoisted is None else exact.hoisted.whole
    if not agree(exact, lambda: (_write(exact, spectra, full), whole), widened(feeds), tolerance):
        raise InternalError(_MISREAD)
    written = _write(analysis, spectra, ranks)
    model = finish(written, analysis)
    check_sunk(model, written, analysis, feeds)
    drop_unread(model, analysis.outputs_at)
    verify(model, analysis.model, feeds)
    return model


def _in_float32(analysis: Analysis) -> Analysis:
    """Return the analysis of the float32 twin of a network in half precision; any other analysis as it is."""
    if not has_half(analysis.model):
        return analysis
    return take_apart(
        in_float32(analysis.model),
        analysis.input_shapes,
        prune_normalised=analysis.prune_normalised,
        sample=widened(analysis.sample),
        outputs_at=analysis.outputs_at,
        trials=[] if analysis.hoisted is None else [widened(trial) for trial in analysis.hoisted.trials],
    )


def _write(analysis: Analysis, spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> onnx.ModelProto:
    return factorised(analysis, {name: partial(_factors, spectra[name], rank) for name, rank in ranks.items()})


def _factors(spectrum: Spectrum, rank: int, layer: Layer) -> subspace.Factors:
    return subspace.factors(layer.matrix(constant_values), spectrum, rank)
