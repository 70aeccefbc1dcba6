"""What trying a few samples shows before the long work: whether the network takes them, and knows their like."""

from __future__ import annotations

from dataclasses import replace

from onnx_subprune.calibration import Dataset
from onnx_subprune.calibration.batch_trial import single_sample_reason, single_sample_warning
from onnx_subprune.errors import OptionError
from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.training_moments import unlike_training
from onnx_subprune.options import Options

__all__ = ["checked_inputs"]


def checked_inputs(analysis: Analysis, dataset: Dataset | None, options: Options) -> tuple[Options, list[str]]:
    """Return options with which the network runs on the samples, and warnings.

    Args:
        analysis: of the dense network.
        dataset: calibration samples; None where there are none.
        options: as they were given.

    Returns:
        The options, with one sample per run where the network takes no more; and what the user should know.

    Raises:
        DataError: a sample does not fit the model.
        OptionError: latency is to be measured with a batch that the network does not take.
        ModelError: the model cannot be opened.

    """
    if dataset is None:
        return options, []
    reason = _single_sample_reason(analysis, dataset, options)
    if reason is not None:
        options = replace(options, batch_size=1)
    warnings = [] if reason is None else [single_sample_warning(reason)]
    return options, [*warnings, *unlike_training(analysis.model, dataset, options.runtime)]


def _single_sample_reason(analysis: Analysis, dataset: Dataset, options: Options) -> str | None:
    if options.batch_size == 1 or not dataset.divisible:
        return None
    session = open_session(analysis.model, options.providers, threads=options.threads, optimise=False)
    reason = single_sample_reason(dataset, lambda feeds: run(session, feeds))
    if reason is not None and options.latency_batch not in (None, 1):
        raise OptionError(
            f"a latency batch of 1 expected, since the model runs on one sample at a time only ({reason}), found "
            f"{options.latency_batch}; leave --latency-batch out"
        )
    return reason
