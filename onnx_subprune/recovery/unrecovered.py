"""The last question to a recovered network is whether it is closer to the dense one than without any recovery.

Least squares on few or unusual samples can do harm that no fit shows by itself. So the same cut is run without any
recovery too, on the samples by which networks are judged, and the better of the two is taken.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune.network.calibrated import Calibrated
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.recovery.stages import NOISE, ROUNDING, Recovered, recover

__all__ = ["OutputErrors", "better_than_none", "unmeasured_share"]

_logger = logging.getLogger(__name__)

_MUCH = 0.1
_UNMEASURED = (
    "the outputs are off by {:.0%} on {} samples: allocation '{}' shared out the target without measuring what layers "
    "are worth; --effort balanced measures it"
)
_WORSE = (
    "nothing was recovered: on {} samples{} the outputs are off by {:.3g}% without recovery, and by {:.3g}% with it; "
    "use more samples, and look at whether they are like those that the network was trained on"
)


@dataclass(frozen=True)
class OutputErrors:
    """How far the outputs of a pruned network are from the dense ones, as root of the relative squared error.

    Attributes:
        pruned: of the network that was taken.
        unrecovered: of the same cut without any recovery.
        samples: on which both were run.
        held_out: whether no fit was chosen without them: where there are too few samples, all are run.

    """

    pruned: float
    unrecovered: float
    samples: int
    held_out: bool


def better_than_none(calibrated: Calibrated, plan: Plan, network: Recovered) -> tuple[Recovered, OutputErrors | None]:
    """Return a recovered network, or the same cut without recovery where that is closer to the dense one.

    Args:
        calibrated: the dense network, and the samples to judge by; without these nothing is compared.
        plan: says which units stay.
        network: the recovered one; where nothing is recovered it is the answer.

    Returns:
        The network, with a warning where it is not the given one, and the errors of both; None where nothing was
        compared.

    """
    distance, options = calibrated.distance, calibrated.options
    if distance is None or options.recovery == "none" or not plan.removes:
        return network, None
    bare = recover(replace(calibrated, options=replace(options, recovery="none")), plan)
    with_recovery, without = distance(network.model), distance(bare.model)
    _logger.info("error at the outputs: %.3g, without recovery %.3g", with_recovery, without)
    samples, held_out = distance.judged, distance.holds_out
    if with_recovery <= (1.0 + NOISE) * without + ROUNDING or not np.isfinite(without):
        return network, OutputErrors(_root(with_recovery), _root(without), samples, held_out)
    warning = _WORSE.format(samples, " held out" if held_out else "", 100 * _root(without), 100 * _root(with_recovery))
    # What was told of the fits does not hold for a network without them.
    return replace(bare, warnings=(warning,)), OutputErrors(_root(without), _root(without), samples, held_out)


def unmeasured_share(options: Options, errors: OutputErrors | None) -> list[str]:
    """Return a warning where much is lost to a target of latency that was shared out without measuring losses.

    Widths that are fast are not those that lose the least: without losses the fast ones are taken, whatever they cost.

    Args:
        options: the target, and how it was shared out.
        errors: of the outputs; None where they were not compared.

    """
    if options.target.kind != "latency" or options.allocation == "measured" or errors is None or errors.pruned < _MUCH:
        return []
    return [_UNMEASURED.format(errors.pruned, errors.samples, options.allocation)]


def _root(squared: float) -> float:
    return float(np.sqrt(squared))
