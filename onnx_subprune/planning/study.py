"""All that widths are chosen from: a calibrated network, the curves of its groups, and what measures latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_subprune.budget import Curve
from onnx_subprune.network.calibrated import Calibrated
from onnx_subprune.planning.latency import LatencyMeter

__all__ = ["SHARED_TARGETS", "Study"]

SHARED_TARGETS = ("macs", "params", "latency", "drop")
"""Targets that an allocation shares out among the groups; all others fix every width by themselves."""


@dataclass(frozen=True, eq=False)
class Study(Calibrated):
    """A calibrated network with all that widths are chosen from.

    Attributes:
        curves: of the groups that may be pruned; all others stay whole.
        meter: of latencies, which a target of latency needs.

    """

    curves: Sequence[Curve] = ()
    meter: LatencyMeter | None = None

    @property
    def measures_losses(self) -> bool:
        """Whether the network is run to share out the target."""
        target = self.options.target
        return self.options.allocation == "measured" and target.kind in SHARED_TARGETS and target.value < 1.0
