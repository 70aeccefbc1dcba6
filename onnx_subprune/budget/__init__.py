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
from onnx_subprune.budget.curves import Curve, joint_share
from onnx_subprune.budget.knapsack import knapsack, lost_without
from onnx_subprune.budget.proportional import affordable_uniform, in_proportion

__all__ = [
    "Allocation",
    "Allocator",
    "Cost",
    "Counts",
    "Curve",
    "affordable_uniform",
    "cheapest_cutoff",
    "drop_branches",
    "in_proportion",
    "joint_share",
    "knapsack",
    "lost_without",
    "uniform",
    "variance",
]
