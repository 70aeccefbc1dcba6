"""From statistics to a plan: curves, losses at the outputs, widths for a target, measured latencies."""

from onnx_subprune.planning.allocation import allocate, dead_groups, feasible, make_plan, relative_cost
from onnx_subprune.planning.choice import Choice, choose, choose_again
from onnx_subprune.planning.drop_search import Drop, Fall, Smallest, fall_of, smallest_network
from onnx_subprune.planning.latency import (
    FastWidths,
    LatencyMet,
    LatencyMeter,
    check_latency,
    fast_widths,
    misses_target,
    timed_shapes,
)
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.measured_cost import check_reached
from onnx_subprune.planning.sensitivity import measure_losses
from onnx_subprune.planning.study import Study
from onnx_subprune.planning.width_multiples import WidthMultiples, fast_multiples, known_multiples, with_multiples

__all__ = [
    "Choice",
    "Drop",
    "Fall",
    "FastWidths",
    "LatencyMet",
    "LatencyMeter",
    "Smallest",
    "Study",
    "WidthMultiples",
    "allocate",
    "check_latency",
    "check_reached",
    "choose",
    "choose_again",
    "dead_groups",
    "fall_of",
    "fast_multiples",
    "fast_widths",
    "feasible",
    "known_multiples",
    "make_plan",
    "measure_losses",
    "misses_target",
    "rank_groups",
    "relative_cost",
    "smallest_network",
    "timed_shapes",
    "with_multiples",
]
