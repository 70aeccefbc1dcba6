"""From a plan to the smaller network: cut, what went folded into what stays, the layers fitted to the dense network.

`channel` is the paper's recovery, one pass over the data, from Gram matrices alone. `exact` starts from it and fits
every linear layer once more, on patches of what the layer itself reads: in sequence on the inputs of the network as it
is pruned so far, or in one pass on those of the dense network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune import calibration, subspace
from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model.forced_branches import with_branch_as_input, with_conditions_of
from onnx_subprune.network.calibrated import Calibrated
from onnx_subprune.network.hoisting import Hoisted, branch_inputs
from onnx_subprune.network.rewrite import restructured, shrink
from onnx_subprune.network.tapped_features import few_row_warnings, grams_of, normalisation_grams, readers_of, tap_of
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.progress import phase
from onnx_subprune.recovery.exact import Networks, Refit, Settings, projection_of, refit
from onnx_subprune.recovery.normalisation_rescaling import rescalings
from onnx_subprune.structure import RECURRENT, Atom, Dim, Normalisation, Structure, keep_mask
from onnx_subprune.subspace import Pending, Rescaling

__all__ = ["NOISE", "ROUNDING", "Recovered", "by_channel", "recover", "resume", "settings"]

_logger = logging.getLogger(__name__)

# Two networks whose errors at the outputs differ by less are as good as each other.
NOISE, ROUNDING = 0.01, 1e-9
_UNSTORED = "the smaller network does not store its weight"
_UNCHECKED = (
    f"exact recovery could not be checked: of fewer than {calibration.HELD} samples none is held out; use more samples"
)
_KEPT = (
    "recovery by channel was kept: on samples held out the outputs are off by {}, and by {} with exact recovery; use "
    "more samples"
)

Keeps: TypeAlias = Mapping[Atom, np.ndarray]


@dataclass(frozen=True, eq=False)
class Recovered:
    """A smaller network.

    Attributes:
        model: the network.
        errors: by consumer, the share of what it reads (`channel`) or gives (`exact`) that the fit does not explain.
        warnings: what the user should know.
        fit: what came of the layers that were fitted to the dense network; None where none were.

    """

    model: onnx.ModelProto
    errors: Mapping[str, float]
    warnings: tuple[str, ...]
    fit: Refit | None = None


def recover(calibrated: Calibrated, plan: Plan) -> Recovered:
    """Cut a network down to a plan and recover as the options say.

    Where there is a `distance`, exact recovery is kept only where its outputs are no worse than those of recovery by
    channel, and each sweep after the first only where it makes them better; without one the fits are trusted.

    Args:
        calibrated: the dense network, its statistics (None recovers nothing) and the samples that exact recovery runs
            both networks on.
        plan: says which units stay.

    Raises:
        OptionError: exact recovery without data.
        PlanError: the plan does not fit the network.

    """
    analysis, statistics, options = calibrated.analysis, calibrated.statistics, calibrated.options
    structure = restructured(analysis)
    keeps = plan.keeps(structure)
    fits, warnings = _channel_fits(structure, keeps, statistics, options)
    restored: dict[Normalisation, Rescaling] = {}
    if options.recovery != "none" and statistics is not None:
        restored, unrescaled = rescalings(structure, keeps, normalisation_grams(structure, statistics))
        warnings += unrescaled
    warnings += _few_row_warnings(structure, fits, statistics)
    model = shrink(analysis.normalised, structure, keeps, fits, restored, scratch=analysis.scratch)
    errors = {consumer.name: fit.error for fit in fits for consumer in fit.consumers if fit.error is not None}
    if options.recovery != "exact":
        return Recovered(model, errors, tuple(warnings))
    if calibrated.dataset is None:
        raise OptionError(
            "expected calibration data, found statistics alone: exact recovery runs the samples again; give --calib, "
            "or ask for --effort fast or --recovery channel"
        )
    cut = Recovered(model, errors, tuple(warnings))
    sweep = _Sweep(calibrated, calibrated.dataset, _Restriction(structure, keeps))
    if calibrated.distance is None:
        return sweep(cut, 0)
    return _further_sweeps(_first_sweep(cut, sweep, calibrated.distance), sweep, calibrated.distance)


def resume(begun: Recovered, calibrated: Calibrated, plan: Plan) -> Recovered:
    """Return what `recover` would, from what it gave for the same plan and one sweep.

    Args:
        begun: the network after one sweep.
        calibrated: as for `recover`; without samples there are no more sweeps.
        plan: says which units stay.

    """
    if calibrated.dataset is None or calibrated.distance is None:
        return begun
    structure = restructured(calibrated.analysis)
    sweep = _Sweep(calibrated, calibrated.dataset, _Restriction(structure, plan.keeps(structure)))
    return _further_sweeps(begun, sweep, calibrated.distance)


@dataclass(frozen=True, eq=False)
class _Sweep:
    """Fits all layers of a network once more, one sweep after the other."""

    calibrated: Calibrated
    dataset: Dataset
    restrict: Callable[[str, np.ndarray], np.ndarray]

    def __call__(self, network: Recovered, number: int) -> Recovered:
        options = self.calibrated.options
        # Every sweep draws rows of its own.
        how = replace(settings(options), seed=options.seed + number)
        fit = self._refit(network.model, how)
        errors = {**network.errors} | {layer.name: layer.after for layer in fit.layers if layer.name in network.errors}
        warnings = (*network.warnings, *(() if number else _unfitted_warnings(fit, errors)))
        return Recovered(fit.model, errors, warnings, fit)

    def _refit(self, model: onnx.ModelProto, how: Settings) -> Refit:
        """Fit the layers, those of hoisted branches too: every sample takes both."""
        analysis, shapes = self.calibrated.analysis, self.calibrated.sample_shapes
        progress = phase(self.calibrated.progress, "fitting layers")
        networks = Networks(analysis.normalised, model, self.restrict, analysis.scratch, shapes)
        versions = [] if analysis.hoisted is None else self._versions(analysis.normalised, analysis.hoisted)
        if analysis.hoisted is None or not versions:
            return refit(networks, self.dataset, how, progress)
        ifs = analysis.hoisted.ifs
        dense, pruned = (with_branch_as_input(each, ifs) for each in (analysis.normalised, model))
        fit = refit(replace(networks, dense=dense, pruned=pruned, versions=versions), self.dataset, how, progress)
        return replace(fit, model=with_conditions_of(fit.model, model, ifs))

    def _versions(self, dense: onnx.ModelProto, hoisted: Hoisted) -> list[Mapping[str, np.ndarray]]:
        size = self.calibrated.options.batch_size
        return branch_inputs(dense, hoisted, lambda: self.dataset.batches(size))


def _first_sweep(cut: Recovered, sweep: _Sweep, distance: OutputDistance) -> Recovered:
    """Return the network after one sweep of fits, or before it where that did not make its outputs better."""
    first = sweep(cut, 0)
    if not distance.holds_out:
        return replace(first, warnings=(*first.warnings, _UNCHECKED))
    by_channel, error = distance(cut.model), distance(first.model)
    _logger.info("error at the outputs: by channel %.3g, exact %.3g", by_channel, error)
    if error > (1.0 + NOISE) * by_channel + ROUNDING:
        return replace(cut, warnings=(*cut.warnings, _KEPT.format(_percent(by_channel), _percent(error))))
    return first


def _further_sweeps(first: Recovered, sweep: _Sweep, distance: OutputDistance) -> Recovered:
    """Return a network that was fitted once after as many more sweeps as make its outputs better."""
    sweeps = sweep.calibrated.options.sweeps
    if sweeps < 2 or first.fit is None or not distance.holds_out:
        return first
    best, error = first, distance(first.model)
    for number in range(1, sweeps):
        network = sweep(best, number)
        network_error = distance(network.model)
        _logger.info("error at the outputs after %d sweeps: %.3g", number + 1, network_error)
        if network_error >= error:
            break
        best, error = network, network_error
    return best


def _percent(distance: float) -> str:
    return f"{100 * np.sqrt(distance):.3g}%"


def by_channel(options: Options) -> Options:
    """Return the options of a recovery that runs no samples: by channel, or none where none is asked for.

    Args:
        options: of the run; they stay as they are.

    """
    return replace(options, recovery="none" if options.recovery == "none" else "channel")


def settings(options: Options) -> Settings:
    """Return how the options fit layers."""
    return Settings(
        sequential=not options.one_pass,
        rows=options.rows,
        batch_size=options.batch_size,
        seed=options.seed,
        providers=options.providers,
        threads=options.threads,
    )


class _Restriction:
    """Cuts values of dense tensors down to the units that stay."""

    def __init__(self, structure: Structure, keeps: Keeps) -> None:
        self._axes = structure.records.axes | _projection_axes(structure)
        self._keeps = keeps
        self._masks: dict[str, list[np.ndarray | None]] = {}

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        for axis, mask in enumerate(self._masks_of(name)):
            if mask is not None and len(mask) == value.shape[axis]:
                value = np.compress(mask, value, axis=axis)
        return value

    def _masks_of(self, name: str) -> list[np.ndarray | None]:
        if name not in self._masks:
            masks = [None if dim.dynamic else keep_mask(dim, self._keeps) for dim in self._axes.get(name, ())]
            self._masks[name] = [None if mask is None or mask.all() else mask for mask in masks]
        return self._masks[name]


def _projection_axes(structure: Structure) -> dict[str, tuple[Dim, ...]]:
    """Return the axes of unseen outputs of linear maps, inside a fused attention or a recurrent layer."""
    axes = structure.records.axes
    return {
        projection_of(consumer.name): (*axes[consumer.source][:-1], consumer.outputs)
        for consumer in structure.consumers
        if consumer.kind in ("Attention", *RECURRENT) and not consumer.recurrence
    }


def _channel_fits(
    structure: Structure, keeps: Keeps, statistics: Statistics | None, options: Options
) -> tuple[list[Pending], list[str]]:
    if options.recovery == "none" or statistics is None:
        return [], []
    return subspace.fit_corrections(structure, keeps, grams_of(structure, statistics), options.ridge)


def _few_row_warnings(structure: Structure, fits: Sequence[Pending], statistics: Statistics | None) -> list[str]:
    """Return a warning for every correction that was fitted on few rows."""
    if statistics is None:
        return []
    readers = readers_of(structure)
    # Where all features are gone only their mean was needed.
    fitted = [consumer for fit in fits if fit.kept[fit.live].any() for consumer in fit.consumers]
    return few_row_warnings(
        statistics, ((f"'{consumer.name}' was fitted", tap_of(readers[consumer])) for consumer in fitted)
    )


def _unfitted_warnings(fit: Refit, errors: Mapping[str, float]) -> list[str]:
    """Return a line for each consumer of removed units that keeps the fit of the channels."""
    fitted = {layer.name for layer in fit.layers}
    nodes = {node.name for node in fit.model.graph.node}
    unfitted = {name: fit.left.get(name, _UNSTORED) for name in errors if name in nodes or name in fit.left}
    reasons = {name: reason for name, reason in unfitted.items() if name not in fitted}
    return [f"'{name}' keeps its recovery by channel: {reason}" for name, reason in reasons.items()]
