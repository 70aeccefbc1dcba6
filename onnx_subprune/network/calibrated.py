"""A network taken apart, its statistics and the options of the run: where planning and recovery start."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.hoisting import taken_branches
from onnx_subprune.network.verify import Rounding
from onnx_subprune.options import Options
from onnx_subprune.progress import Watch

__all__ = ["Calibrated", "output_distance"]

_PORTION = 4
"""Recovered networks are compared on so many times the samples that one group alone is judged by."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """All that a plan is made from and carried out with.

    Attributes:
        analysis: of the dense network.
        statistics: of its calibration; None where nothing is recovered.
        dataset: calibration samples; None where statistics of an earlier calibration were given.
        options: how the network is pruned.
        distance: of other networks' outputs to those of the dense one, on samples held out; None without a dataset.
        progress: called with the name of a phase, the steps done in it and their number.
        rounding: how far rounding alone moves the dense network (`verify.check_normalised`).
        sample_shapes: of tensors of the dense network for the first sample: exact recovery keeps them from one pruned
            network to the next.

    """

    analysis: Analysis
    statistics: Statistics | None
    dataset: Dataset | None
    options: Options
    distance: OutputDistance | None = None
    progress: Watch | None = None
    rounding: Rounding = field(default=Rounding(), kw_only=True)
    sample_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, kw_only=True)


def output_distance(analysis: Analysis, dataset: Dataset | None, options: Options) -> OutputDistance | None:
    """Return what measures how far outputs are off; None without data.

    Args:
        analysis: of the dense network.
        dataset: calibration samples.
        options: where networks run, and the samples that one group is probed on: four times as many are taken.

    """
    if dataset is None:
        return None
    # Runs of as many samples as one group is judged by: no more are run than are asked for.
    runtime = replace(options.runtime, batch_size=min(options.batch_size, options.probes))
    samples = _PORTION * options.probes
    return OutputDistance(
        analysis.normalised,
        dataset,
        runtime,
        samples,
        at=analysis.outputs_at,
        versions=taken_branches(analysis.hoisted),
    )
