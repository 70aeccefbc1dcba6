"""The budget: how many units every group keeps for a target."""

from __future__ import annotations

from onnx_subprune.budget.allocate import (
    Allocation,
    Allocator,
    Cost,
    Counts,
    cheapest_cutoff,
    drop_branches,
    uniform,
    variance,
)
from onnx_subprune.budget.candidates import blend, candidates, neighbours
from onnx_subprune.budget.curves import Curve, never_empty
from onnx_subprune.budget.knapsack import knapsack, lost_without
from onnx_subprune.budget.ladder import losses_of
from onnx_subprune.budget.loss_scaling import fit_sensitivity
from onnx_subprune.budget.measured_target import MEETINGS, TOLERANCE, Met, meet
from onnx_subprune.budget.proportional import affordable_uniform, in_proportion
from onnx_subprune.budget.search import Searched, Trial, smallest
from onnx_subprune.budget.time_fit import Fit, fit_times, sampled_widths

__all__ = [
    "MEETINGS",
    "TOLERANCE",
    "Allocation",
    "Allocator",
    "Cost",
    "Counts",
    "Curve",
    "Fit",
    "Met",
    "Searched",
    "Trial",
    "affordable_uniform",
    "blend",
    "candidates",
    "cheapest_cutoff",
    "drop_branches",
    "fit_sensitivity",
    "fit_times",
    "in_proportion",
    "knapsack",
    "losses_of",
    "lost_without",
    "meet",
    "neighbours",
    "never_empty",
    "sampled_widths",
    "smallest",
    "uniform",
    "variance",
]
