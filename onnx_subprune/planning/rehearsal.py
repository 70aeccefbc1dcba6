"""What the first batches show before the long work: the seconds that its parts take here, for this network.

Every figure is measured in the run that it is for, by the functions that the run will call: calibration on a few
samples, the ranking of two groups, their losses measured, one cut, one sharing out of the target. Nothing of it is
used for the result.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from onnx_subprune import budget
from onnx_subprune.calibration import Dataset, FirstSamples, Statistics
from onnx_subprune.errors import SubpruneError
from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.calibrated import output_distance
from onnx_subprune.network.inputs import take_statistics
from onnx_subprune.network.tapped_features import reached_groups, taps_of
from onnx_subprune.options import Options, Target
from onnx_subprune.planning.allocation import allocate, make_plan
from onnx_subprune.planning.default_widths import width_steps
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.sensitivity import measure_losses
from onnx_subprune.planning.study import Study
from onnx_subprune.progress import now, resident_bytes
from onnx_subprune.recovery import by_channel, recover
from onnx_subprune.structure import Group
from onnx_subprune.threads import side_by_side

__all__ = ["Rehearsal", "made_up_curves", "rehearse"]

_logger = logging.getLogger(__name__)

_BATCHES = 4
"""The first one is not timed: memory is given out, and kernels are chosen."""
_PART = 64
"""A batch of a rehearsal is at most one sample in so many: no more than a twentieth of the calibration."""
_LEAST = 4
"""One sample alone is not typical: it takes nearly the time of several."""
_GROUPS = 2
_USUAL = 0.5
"""The share of MACs that a target of another kind is shared out as."""
# Of the trial of products and copies: long enough for a clock, a few milliseconds in all.
_WIDTH, _ROWS = 144, 16384


@dataclass(frozen=True)
class Rehearsal:
    """Seconds that parts of the work take, and the size of what calibration holds.

    Attributes:
        opening: a session of the dense network.
        inference: one sample through the dense network, in batches.
        calibrating: one sample with all taps, products included.
        before_calibrating: what calibration takes before and after its batches.
        ranking: one group.
        ranked_cubes: the cube of the units of one of the groups that were ranked, the mean.
        probing: one group whose losses are measured at all levels.
        cutting: the network cut down and recovered by channel.
        sharing: the target shared out among all groups once.
        product: one multiply-add of a product in single precision.
        copying: one entry copied out of its order.
        passes: how often calibration reads the samples.
        tapped_bytes: of one sample's tapped tensors; the largest of them.
        gram_bytes: of all second moments.
        rows: of one sample for each feature, at the tap that has fewest.
        resident_bytes: of the process.

    """

    opening: float
    inference: float
    calibrating: float
    before_calibrating: float
    ranking: float
    ranked_cubes: float
    probing: float
    cutting: float
    sharing: float
    product: float
    copying: float
    passes: float
    tapped_bytes: tuple[float, float]
    gram_bytes: int
    rows: float
    resident_bytes: int


def rehearse(analysis: Analysis, groups: Sequence[Group], dataset: Dataset, options: Options) -> Rehearsal | None:
    """Try every part of the work on a few samples and two groups.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        dataset: calibration samples, of which the first are read.
        options: how the network is pruned.

    Returns:
        What was measured; None where a part fails on so few samples. What is wrong is said by the work itself.

    """
    try:
        return _measured(analysis, groups, dataset, options)
    except SubpruneError as error:
        _logger.info("no forecast: %s", error)
        return None


def made_up_curves(analysis: Analysis, groups: Sequence[Group], options: Options) -> list[budget.Curve]:
    """Return curves as they may come out, before anything is known of the losses: for what depends on widths alone.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        options: the target, and whether groups may go as a whole.

    """
    steps = width_steps(analysis, groups, options)
    removable = {group.name for group in analysis.structure.removable}
    may_go = options.allocation == "measured" and 0.0 in options.levels
    curves = []
    for group in groups:
        share = np.linspace(0.0, 1.0, group.size + 1)
        minimum = 0 if may_go and group.name in removable else 1
        loss = np.square(1.0 - share)
        order = np.arange(group.size)
        curves.append(budget.Curve(group.name, group.size, order, share, minimum, steps[group.name], loss))
    return curves


def _measured(analysis: Analysis, groups: Sequence[Group], dataset: Dataset, options: Options) -> Rehearsal:
    size = _batch_size(dataset, options)
    few = FirstSamples(dataset, _BATCHES * size)
    _logger.info("a rehearsal on %d samples, for the forecast", _BATCHES * size)
    opening, inference = _plain(analysis, few, options, size)
    statistics, calibrating, before, passes = _calibration(analysis, few, replace(options, batch_size=size))
    some = _some_of(reached_groups(analysis.structure, groups, statistics)[0])
    start = now()
    curves = rank_groups(analysis, some, statistics, options)
    ranking = (now() - start) / len(some)
    study = Study(
        analysis, statistics, dataset, options, output_distance(analysis, dataset, options), curves=tuple(curves)
    )
    imagined = made_up_curves(analysis, groups, options)
    product, copying = _arithmetic(options)
    rows = {key: gram.count / statistics.samples * gram.matrix.shape[0] for key, gram in statistics.grams.items()}
    tapped = [4.0 * rows[key] * gram.features for key, gram in statistics.grams.items()]
    return Rehearsal(
        opening=opening,
        inference=inference,
        calibrating=calibrating,
        before_calibrating=before,
        ranking=ranking,
        ranked_cubes=float(np.mean([float(group.size) ** 3 for group in some])),
        probing=_probing(study),
        cutting=_cutting(replace(study, curves=imagined)),
        sharing=_sharing(study, imagined) if study.measures_losses else 0.0,
        product=product,
        copying=copying,
        passes=passes,
        tapped_bytes=(sum(tapped), max(tapped)),
        gram_bytes=sum(gram.matrix.nbytes for gram in statistics.grams.values()),
        rows=min(gram.count / (gram.features * statistics.samples) for gram in statistics.grams.values()),
        resident_bytes=resident_bytes(),
    )


def _batch_size(dataset: Dataset, options: Options) -> int:
    samples = options.batch_size * _PART if dataset.samples is None else dataset.samples
    return min(options.batch_size, max(samples // _PART, _LEAST))


def _some_of(groups: Sequence[Group]) -> list[Group]:
    """Return groups from the front and the back of the network, as far as there are many."""
    count = max(1, min(_GROUPS, len(groups) // (4 * _GROUPS)))
    return [groups[(2 * number + 1) * len(groups) // (2 * count)] for number in range(count)]


def _plain(analysis: Analysis, data: Dataset, options: Options, size: int) -> tuple[float, float]:
    """Return the seconds of a session's opening, and of one sample's run."""
    start = now()
    session = open_session(analysis.normalised, options.providers, threads=options.threads)
    opening = now() - start
    times = []
    for feeds in data.batches(size):
        start = now()
        run(session, feeds)
        times.append((now() - start) / data.samples_in(feeds))
    return opening, min(times)


def _calibration(analysis: Analysis, data: Dataset, options: Options) -> tuple[Statistics, float, float, float]:
    """Return statistics of a few samples, the seconds of one sample in a pass, those beside all passes, and passes."""
    steps: list[tuple[float, int]] = []
    start = now()
    statistics = take_statistics(
        analysis, taps_of(analysis.structure), data, options, lambda done, _: steps.append((now(), done))
    )
    whole = now() - start
    # Each version of a network with branches counts from the start again.
    ends = [count for (_, count), (_, after) in zip(steps, [*steps[1:], (0.0, 0)], strict=True) if after <= count]
    times = [
        (later - earlier) / (done - before) for (earlier, before), (later, done) in pairwise(steps) if done > before
    ]
    if not times:
        return statistics, whole / statistics.samples, 0.0, 1.0
    # The first batches are slower: memory is given out.
    each = min(times)
    return statistics, each, max(0.0, whole - sum(times) / len(times) * sum(ends)), sum(ends) / statistics.samples


def _probing(study: Study) -> float:
    if not study.measures_losses or study.distance is None:
        return 0.0
    # The dense network is run once, for all groups.
    _ = study.distance.judged
    start = now()
    measure_losses(study)
    return (now() - start) / len(study.curves)


def _cutting(study: Study) -> float:
    widths = {curve.group: -(-curve.size // 2) for curve in study.curves}
    start = now()
    recover(replace(study, options=by_channel(study.options)), make_plan(study, widths))
    return now() - start


def _sharing(study: Study, curves: Sequence[budget.Curve]) -> float:
    target = study.options.target
    counted = target if target.kind in ("macs", "params") else Target("macs", _USUAL)
    start = now()
    allocate(study.analysis.structure, curves, counted, "loss")
    return now() - start


def _arithmetic(options: Options) -> tuple[float, float]:
    """Return the seconds of a multiply-add, and of an entry that is copied out of its order."""
    values = np.ones((_ROWS, _WIDTH), np.float32)
    products, copies = [], []
    with side_by_side(options.threads):
        for _ in range(_BATCHES):
            start = now()
            values.T @ values
            products.append(now() - start)
            start = now()
            np.ascontiguousarray(values.T)
            copies.append(now() - start)
    return min(products) / (_ROWS * math.prod((_WIDTH, _WIDTH))), min(copies) / values.size
