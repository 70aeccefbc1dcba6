"""Where a run starts: a model taken apart, the data to calibrate on, and a few inputs to verify the result with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnx_subprune import calibration
from onnx_subprune.calibration import Dataset, Gram, Statistics, Tap
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.model import (
    InputSpec,
    input_specs,
    open_model,
    overridable_warnings,
    register_custom_ops,
    without_overridable,
)
from onnx_subprune.model.named_points import check_points
from onnx_subprune.network.analysis import Analysis, ModelSource, first_sample, take_apart
from onnx_subprune.network.forms import check_forms
from onnx_subprune.network.hoisting import fails_where_not_taken, taken_branches
from onnx_subprune.network.tapped_features import taps_of
from onnx_subprune.options import Options
from onnx_subprune.progress import Progress
from onnx_subprune.structure import NORMALISED_OPTION

__all__ = [
    "SCARCE",
    "Feeds",
    "check_pruning_statistics",
    "check_statistics",
    "feeds_of",
    "open_dataset",
    "prepare",
    "probe",
    "pruning_statistics",
    "take_statistics",
]

Feeds: TypeAlias = dict[str, np.ndarray]

SCARCE = 4
"""With fewer rows per feature, errors on samples that weights were fitted to are under six tenths of the true ones."""


def prepare(
    model: ModelSource, data: Any, options: Options, statistics: Statistics | None = None
) -> tuple[Analysis, Dataset | None]:
    """Load model and data; sizes of dynamic axes come from the options, else from the samples that calibrate.

    Args:
        model: a path or a loaded model.
        data: anything that `calibration.open_data` takes; None for no dataset.
        options: which samples, sizes of inputs, and whether normalised axes may shrink.
        statistics: of an earlier calibration, which knows the sizes that it saw.

    Raises:
        ModelError, DataError, OptionError: the input is at fault.

    """
    register_custom_ops(options.custom_ops)
    proto = open_model(model)
    if options.strip_initializer_inputs:
        proto = without_overridable(proto)
    check_points(proto, options.outputs_at)
    specs = input_specs(proto)
    shapes = dict(statistics.input_shapes) if statistics is not None else {}
    dataset: Dataset | None = None
    sample: Feeds = {}
    if data is not None:
        dataset = open_dataset(data, specs, options)
        sample = first_sample(dataset)
        shapes = {spec.name: sample[spec.name].shape for spec in specs}
    shapes.update(options.input_shapes)
    analysis = _taken_apart(proto, shapes, sample, dataset, options)
    check_forms(analysis.forms, prunable=bool(analysis.structure.prunable))
    return analysis, dataset


def open_dataset(data: Any, inputs: Sequence[InputSpec], options: Options) -> Dataset:
    """Return the samples to calibrate on; those that the caller opened as they are.

    Args:
        data: anything that `calibration.open_data` takes.
        inputs: of the model.
        options: how many samples, and the seed that chooses them.

    Raises:
        DataError: the data does not fit the model.

    """
    if isinstance(data, Dataset):
        return data
    return calibration.open_data(data, inputs, samples=options.samples, seed=options.seed)


def _taken_apart(
    proto: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    sample: Feeds,
    dataset: Dataset | None,
    options: Options,
) -> Analysis:
    """Take a model apart with the branches hoisted that run on all samples."""
    take = partial(
        take_apart,
        proto,
        shapes,
        prune_normalised=options.prune_normalised,
        sample=sample,
        outputs_at=options.outputs_at,
    )
    analysis = take()
    failing: list[Feeds] = []
    while dataset is not None and (trial := _failing_inputs(analysis, dataset, options.batch_size)) is not None:
        # Each time at least one branch less is hoisted.
        failing.append(trial)
        analysis = take(trials=failing)
    return analysis


def _failing_inputs(analysis: Analysis, dataset: Dataset, batch_size: int) -> Feeds | None:
    """Return a batch on which a hoisted branch fails that it does not take; None where all of them run."""
    hoisted = analysis.hoisted
    if hoisted is None or not hoisted.ifs:
        return None
    trials = (dict(feeds) for feeds in dataset.batches(batch_size))
    return next((trial for trial in trials if fails_where_not_taken(analysis.normalised, hoisted, trial)), None)


def probe(analysis: Analysis, dataset: Dataset | None, options: Options) -> Feeds:
    """Return a few inputs to verify the result on: real ones where there are any.

    Args:
        analysis: of the dense network.
        dataset: calibration samples; None for random numbers.
        options: the samples per run, and the seed of random numbers.

    """
    if dataset is not None:
        return dict(next(iter(dataset.batches(min(4, options.batch_size)))))
    return random_feeds(analysis.inputs, analysis.input_shapes, options.seed)


def feeds_of(analysis: Analysis, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Feeds:
    """Return inputs of the given shapes: those of the first sample where it has them, random numbers elsewhere.

    Args:
        analysis: of the dense network.
        shapes: by input.
        seed: of random numbers.

    """
    fitting = {name: value for name, value in analysis.sample.items() if value.shape == shapes.get(name)}
    made = random_feeds(analysis.inputs, shapes, seed)
    return {name: fitting.get(name, value) for name, value in made.items()}


def take_statistics(
    analysis: Analysis, taps: Sequence[Tap], dataset: Dataset | None, options: Options, progress: Progress | None
) -> Statistics:
    """Calibrate a model taken apart; where it has hoisted branches, also with each of them taken on every sample.

    Args:
        analysis: of the dense network.
        taps: where statistics are taken.
        dataset: calibration samples.
        options: where networks run.
        progress: called with the samples done and their number.

    Raises:
        OptionError: there is no data.

    """
    if dataset is None:
        raise OptionError("expected calibration data or statistics, found neither; give --calib or --statistics")
    statistics = [_calibrated(analysis.normalised, taps, dataset, options, progress)]
    for version in taken_branches(analysis.hoisted):
        # What follows on a branch that the samples do not take may not run on what it gives.
        with contextlib.suppress(DataError, ModelError):
            statistics.append(_calibrated(version(analysis.normalised), taps, dataset, options, progress))
    return replace(
        _mean(statistics) if len(statistics) > 1 else statistics[0],
        fingerprint=analysis.fingerprint,
        input_shapes=analysis.input_shapes,
    )


def _calibrated(
    model: onnx.ModelProto, taps: Sequence[Tap], dataset: Dataset, options: Options, progress: Progress | None
) -> Statistics:
    return calibration.calibrate(
        model,
        taps,
        dataset,
        providers=options.providers,
        batch_size=options.batch_size,
        progress=progress,
        threads=options.threads,
    )


def _mean(versions: Sequence[Statistics]) -> Statistics:
    """Return the statistics of a network on the same samples in several versions, as those of one run over them."""
    first, number = versions[0], len(versions)
    grams: dict[str, Gram] = {}
    for key in first.grams:
        counts, matrices = zip(*((each.grams[key].count, each.grams[key].matrix) for each in versions), strict=True)
        grams[key] = Gram(round(sum(counts) / number), np.sum(matrices, axis=0) / number)
    return replace(first, grams=grams)


def pruning_statistics(
    analysis: Analysis, dataset: Dataset | None, options: Options, progress: Progress | None = None
) -> Statistics:
    """Take the statistics that pruning needs: those of every layout in which a prunable group is read.

    Where rows are scarce and recovery is exact, samples held out have no part in them.

    Args:
        analysis: of the dense network.
        dataset: calibration samples.
        options: where networks run.
        progress: called with the samples done and their number.

    Raises:
        OptionError: there is no data, or no group that can be pruned.

    """
    taps = taps_of(analysis.structure)
    if dataset is not None and not taps:
        held = [g for g in analysis.structure.frozen if all(NORMALISED_OPTION in reason for reason in g.reasons)]
        ways_out = [f"{NORMALISED_OPTION} lets {len(held)} shrink"] * bool(held)
        left = () if analysis.hoisted is None else analysis.hoisted.left
        ways_out += [*left, *overridable_warnings(analysis.model), "`onnx-subprune inspect` says why"]
        raise OptionError(f"expected at least one prunable group, found none; {'; '.join(ways_out)}")
    statistics = take_statistics(analysis, taps, dataset, options, progress)
    if dataset is None or not _seen_too_well(statistics, options):
        return statistics
    return take_statistics(analysis, taps, calibration.FittedDataset(dataset), options, progress)


def _seen_too_well(statistics: Statistics, options: Options) -> bool:
    """Return whether networks would be judged by samples that their weights were fitted to almost exactly.

    With about as many rows as features, least squares return the very outputs of all samples they have seen. On those
    held out, the removal of any group then looks free, and no exact fit looks better.
    """
    scarce = any(gram.count < SCARCE * gram.features for gram in statistics.grams.values())
    return options.recovery == "exact" and scarce


def check_pruning_statistics(statistics: Statistics, analysis: Analysis, advice: str) -> None:
    """Refuse statistics that are not those that pruning this model needs.

    Args:
        statistics: that were given.
        analysis: of the dense network.
        advice: how to come by the right ones.

    Raises:
        OptionError: they are of another model, or some are missing.

    """
    check_statistics(statistics, analysis, taps_of(analysis.structure), advice)


def check_statistics(statistics: Statistics, analysis: Analysis, taps: Sequence[Tap], advice: str) -> None:
    """Refuse statistics of another model, or without those of a tap.

    Args:
        statistics: that were given.
        analysis: of the dense network.
        taps: whose statistics are needed.
        advice: how to come by missing ones.

    Raises:
        OptionError: they are of another model, or some are missing.

    """
    if statistics.fingerprint != analysis.fingerprint:
        raise OptionError(
            f"expected statistics of this model ({analysis.fingerprint[:12]}), found those of another "
            f"({statistics.fingerprint[:12]}); calibrate this model"
        )
    missing = [tap.key for tap in taps if tap.key not in statistics.grams]
    if missing:
        raise OptionError(f"expected statistics of '{missing[0]}', found none in those given; {advice}")
