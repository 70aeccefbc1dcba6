"""What the network's outputs lose when one group loses units, measured: the weights of a budget.

Each group is pruned alone, to a few widths, recovered by channel, and run on a few samples. The losses at its
consumers get the scale of the errors that were seen at the outputs. A group that was measured without any of its units
may lose them all. Of very many groups neighbours are pruned together, and share their error by their losses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from math import isfinite

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune import budget
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.latency import Record
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.planning.probes import Point, Probes
from onnx_subprune.planning.study import Study
from onnx_subprune.progress import phase
from onnx_subprune.recovery import by_channel, recover
from onnx_subprune.threads import ahead, side_by_side

__all__ = ["measure_losses"]

# More groups than the largest networks of one stage a layer have (a DenseNet-121 has 119).
_MOST_PROBED = 128


def measure_losses(study: Study, record: Record | None = None) -> Study:
    """Return the study with losses that are errors at the outputs, where its allocation asks for them.

    Args:
        study: with losses at the consumers.
        record: of errors that earlier runs have measured; this run's are added, those of a run that breaks off too.

    Raises:
        OptionError: they are to be measured and there is no data to measure them on.

    """
    if not study.measures_losses:
        return study
    if study.distance is None:
        raise OptionError(
            "expected calibration data, found statistics alone: allocation 'measured' runs samples; give --calib, or "
            "ask for --effort fast or another --allocation"
        )
    errors = _errors_alone(study, study.distance, record)
    curves = [replace(curve, minimum=0) if 0 in errors.get(curve.group, ()) else curve for curve in study.curves]
    measured = {group: list(points.items()) for group, points in errors.items()}
    return replace(study, curves=budget.fit_sensitivity(curves, measured))


def _errors_alone(study: Study, distance: OutputDistance, record: Record | None) -> dict[str, dict[int, float]]:
    """Return the finite errors at the outputs with one group pruned alone, by group and width."""
    options, structure = study.options, study.analysis.structure
    alone = replace(study, options=by_channel(options))
    removable = {group.name for group in structure.removable}
    fewest = {curve.group: int(curve.group not in removable) for curve in study.curves}
    wanted = {c.group: _widths(c, options.levels, fewest[c.group]) for c in study.curves}
    kept = {} if record is None else _kept_errors(record)
    errors = {
        group: {w: kept[group][w] for w in widths if w in kept.get(group, {})} for group, widths in wanted.items()
    }
    points = [point for block in _blocks(study.curves) for point in _points(block, wanted)]
    known = {point for point in points if all(width in errors[group] for group, width in point)}
    losses = {curve.group: budget.losses_of(curve) for curve in study.curves}
    progress = phase(study.progress, "measuring sensitivities")
    with side_by_side(options.threads), _recorded(errors, record):
        for index, (point, error) in enumerate(_errors_at(alone, distance, points, known)):
            if progress is not None:
                progress(len(known) + index, len(points))
            if isfinite(error):
                for group, share in _shares(point, losses).items():
                    errors[group].setdefault(dict(point)[group], share * error)
    if progress is not None:
        progress(len(points), len(points))
    # In the order of the widths, whichever were measured now.
    ordered = {group: {w: errors[group][w] for w in widths if w in errors[group]} for group, widths in wanted.items()}
    return {group: points for group, points in ordered.items() if points}


def _blocks(curves: Sequence[budget.Curve]) -> list[Sequence[budget.Curve]]:
    """Return groups that are pruned together: each alone, or neighbours of which there are too many.

    The cost would grow with the number of groups and the depth of the network both, and so with its square.
    """
    length = -(-len(curves) // _MOST_PROBED)
    return [curves[start : start + length] for start in range(0, len(curves), length or 1)]


def _points(block: Sequence[budget.Curve], wanted: Mapping[str, Sequence[int]]) -> list[Point]:
    """Return the widths of a block to measure, narrow ones first; groups with fewer widths repeat their last one."""
    widths = {curve.group: wanted[curve.group] for curve in block if wanted[curve.group]}
    steps = max(map(len, widths.values()), default=0)
    return [tuple((group, each[min(step, len(each) - 1)]) for group, each in widths.items()) for step in range(steps)]


def _shares(point: Point, losses: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the shares of an error that groups have which were pruned together: in proportion to their losses."""
    alone = {group: float(losses[group][width]) for group, width in point}
    total = sum(alone.values())
    return {group: loss / total if total > 0 else 1 / len(alone) for group, loss in alone.items()}


def _errors_at(
    study: Study, distance: OutputDistance, points: Sequence[Point], known: Collection[Point]
) -> Iterator[tuple[Point, float]]:
    """Yield points that are not known and their errors: without surgery, and with it where there is no other way."""
    if len(points) == len(known):
        return
    probes = Probes(study, distance, points, known)
    yield from probes

    def pruned(point: Point) -> onnx.ModelProto:
        return recover(study, make_plan(study, dict(point))).model

    # One network is cut while the last one runs.
    with closing(ahead(pruned(point) for point in probes.left)) as models:
        for point, model in zip(probes.left, models, strict=True):
            yield point, distance(model, study.options.probes)


@contextmanager
def _recorded(errors: Mapping[str, Mapping[int, float]], record: Record | None) -> Iterator[None]:
    """Keep the errors that were measured, also where the run breaks off."""
    try:
        yield
    finally:
        if record is not None:
            kept = _kept_errors(record)
            merged = {group: {**kept.get(group, {}), **widths} for group, widths in errors.items()}
            record.data = {**record.data, **{group: dict(widths) for group, widths in merged.items()}}
            record.save()


def _kept_errors(record: Record) -> dict[str, dict[int, float]]:
    """Return what a record holds; nothing where it is damaged."""
    try:
        return {
            str(group): {int(width): float(error) for width, error in widths.items()}
            for group, widths in record.data.items()
        }
    except (AttributeError, TypeError, ValueError):
        record.forget("a damaged entry")
        return {}


def _widths(curve: budget.Curve, levels: Sequence[float], fewest: int) -> list[int]:
    """Return the widths to measure: at least one unit less than all."""
    widths = {min(curve.size - 1, round(level * curve.size)) for level in levels}
    return sorted({max(fewest, width) for width in widths} - {curve.size})
