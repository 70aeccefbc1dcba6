"""From a plan to the smaller network: cut, what went folded into what stays, the layers fitted to the dense network.

`channel` is the paper's recovery, one pass over the data, from Gram matrices alone. `exact` starts from it and fits
every linear layer once more, on patches of what the layer itself reads: in sequence on the inputs of the network as it
is pruned so far, or in one pass on those of the dense network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune import calibration, subspace
from onnx_subprune.analysis import Analysis, restructured, shrink
from onnx_subprune.calibration import Dataset, Progress, Statistics
from onnx_subprune.departure import HELD
from onnx_subprune.errors import OptionError
from onnx_subprune.normalised import rescalings
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.refit import Networks, Refit, Settings, refit
from onnx_subprune.structure import Atom, Normalisation, Structure, keep_mask
from onnx_subprune.subspace import Pending, Rescaling
from onnx_subprune.tapping import normalisation_grams, readers_of, tap_of

__all__ = ["Recovered", "by_channel", "recovered"]

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


def recovered(
    analysis: Analysis,
    plan: Plan,
    statistics: Statistics | None,
    dataset: Dataset | None,
    options: Options,
    *,
    progress: Progress | None = None,
) -> Recovered:
    """Cut a network down to a plan and recover as the options say.

    Raises:
        OptionError: exact recovery without data.
        PlanError: the plan does not fit the network.

    """
    structure = restructured(analysis)
    keeps = plan.keeps(structure)
    fits, warnings = _fits(structure, keeps, statistics, options)
    restored: dict[Normalisation, Rescaling] = {}
    if options.recovery != "none" and statistics is not None:
        restored, left = rescalings(structure, keeps, normalisation_grams(structure, statistics))
        warnings += left
    warnings += _thin(structure, fits, statistics)
    model = shrink(analysis.normalised, structure, keeps, fits, restored, scratch=analysis.scratch)
    errors = {consumer.name: fit.error for fit in fits for consumer in fit.consumers if fit.error is not None}
    if options.recovery != "exact":
        return Recovered(model, errors, tuple(warnings))
    if dataset is None:
        raise OptionError(
            "expected calibration data, found statistics alone: exact recovery runs the samples again; give --calib, "
            "or ask for --effort fast or --recovery channel"
        )
    networks = Networks(analysis.normalised, model, _Cut(structure, keeps), analysis.scratch)
    found = refit(networks, dataset, settings(options), progress)
    errors |= {layer.name: layer.after for layer in found.layers if layer.name in errors}
    return Recovered(found.model, errors, (*warnings, *_left(found, errors)), found)


def by_channel(options: Options) -> Options:
    """Return the options of a recovery that runs no samples: by channel, or none where none is asked for."""
    return replace(options, recovery="none" if options.recovery == "none" else "channel")


def settings(options: Options) -> Settings:
    """Return how the options fit layers."""
    return Settings(
        sequential=not options.one_pass,
        held=HELD,
        rows=options.rows,
        batch_size=options.batch_size,
        seed=options.seed,
        providers=options.providers,
        threads=options.threads,
    )


class _Cut:
    """Cuts values of dense tensors down to the units that stay."""

    def __init__(self, structure: Structure, keeps: Keeps) -> None:
        self._axes = structure.context.axes
        self._keeps = keeps
        self._masks: dict[str, list[np.ndarray | None]] = {}

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        for axis, mask in enumerate(self._of(name)):
            if mask is not None and len(mask) == value.shape[axis]:
                value = np.compress(mask, value, axis=axis)
        return value

    def _of(self, name: str) -> list[np.ndarray | None]:
        if name not in self._masks:
            masks = [None if dim.dynamic else keep_mask(dim, self._keeps) for dim in self._axes.get(name, ())]
            self._masks[name] = [None if mask is None or mask.all() else mask for mask in masks]
        return self._masks[name]


def _fits(
    structure: Structure, keeps: Keeps, statistics: Statistics | None, options: Options
) -> tuple[list[Pending], list[str]]:
    if options.recovery == "none" or statistics is None:
        return [], []
    grams = {
        consumer: statistics.grams[tap_of(features).key].matrix for consumer, features in readers_of(structure).items()
    }
    return subspace.fit_corrections(structure, keeps, grams, options.ridge)


def _thin(structure: Structure, fits: Sequence[Pending], statistics: Statistics | None) -> list[str]:
    """Return a warning for every correction that was fitted on few rows."""
    if statistics is None:
        return []
    readers, warnings = readers_of(structure), []
    # Where all features are gone only their mean was needed.
    for consumer in (consumer for fit in fits if fit.kept[fit.live].any() for consumer in fit.consumers):
        gram = statistics.grams[tap_of(readers[consumer]).key]
        advised = calibration.ROWS_PER_FEATURE * gram.features
        if gram.count < advised:
            warnings.append(
                f"'{consumer.name}' was fitted on {gram.count} rows for {gram.features} features, where at least "
                f"{advised} are advised; use more samples"
            )
    return warnings


def _left(found: Refit, errors: Mapping[str, float]) -> list[str]:
    """Return a line for each consumer of removed units that keeps the fit of the channels."""
    return [f"'{name}' keeps its recovery by channel: {why}" for name, why in found.left.items() if name in errors]
