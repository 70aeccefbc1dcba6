"""From statistics to a plan: curves, what is lost at the outputs, widths for a target, measured latencies."""

from onnx_subprune.planning.allocation import allocate, cost_of, dead_groups, make_plan, possible
from onnx_subprune.planning.choice import Choice, Study, choose, scaled
from onnx_subprune.planning.curves import rank_groups
from onnx_subprune.planning.drop_search import Fall, Smallest, fall_of, smallest_network
from onnx_subprune.planning.latency import (
    Clock,
    LatencyMet,
    Multiples,
    fast_multiples,
    known_multiples,
    stepped,
    timed_shapes,
)
from onnx_subprune.planning.sensitivity import measured_curves

__all__ = [
    "Choice",
    "Clock",
    "Fall",
    "LatencyMet",
    "Multiples",
    "Smallest",
    "Study",
    "allocate",
    "choose",
    "cost_of",
    "dead_groups",
    "fall_of",
    "fast_multiples",
    "known_multiples",
    "make_plan",
    "measured_curves",
    "possible",
    "rank_groups",
    "scaled",
    "smallest_network",
    "stepped",
    "timed_shapes",
]
