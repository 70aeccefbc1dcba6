"""The budget: how many units every group keeps for a target."""

from __future__ import annotations

from onnx_subprune.budget.allocate import Allocation, cheapest_cutoff, drop_branches, uniform, variance
from onnx_subprune.budget.curves import Curve, joint_share

__all__ = ["Allocation", "Curve", "cheapest_cutoff", "drop_branches", "joint_share", "uniform", "variance"]
