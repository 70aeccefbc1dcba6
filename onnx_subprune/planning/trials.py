"""Allocations carried out and run, to take the one whose outputs stay closest to those of the dense network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.planning.study import Study
from onnx_subprune.recovery import Recovered, recover

__all__ = ["Trials"]

_logger = logging.getLogger(__name__)

_TRYING = "trying allocations"


class Trials:
    """Allocations that were carried out with one sweep of fits, each at most once, and the best of them.

    Args:
        study: the network, and how the allocations are carried out.
        distance: of their outputs, by which they are judged.
        most: so many are tried at most.

    Attributes:
        widths: of the best allocation; empty before the first trial.
        network: that these widths gave.
        error: of its outputs.

    """

    def __init__(self, study: Study, distance: OutputDistance, *, most: int) -> None:
        self._study = replace(study, options=replace(study.options, sweeps=1))
        self._distance = distance
        self._most = most
        self._seen: dict[tuple[tuple[str, int], ...], tuple[float, str]] = {}
        self.widths: dict[str, int] = {}
        self.network: Recovered | None = None
        self.error = float("inf")

    @property
    def remaining(self) -> int:
        """How many more may be tried."""
        return self._most - len(self._seen)

    @property
    def errors(self) -> dict[str, float]:
        """The errors at the outputs of all allocations that were tried, by name."""
        return {name: error for error, name in self._seen.values()}

    def ranked(self) -> list[str]:
        """Return the names of the allocations that were tried, the best first."""
        return [name for _, name in sorted(self._seen.values())]

    def run(self, allocations: Mapping[str, dict[str, int]]) -> bool:
        """Try allocations that were not tried before; whether one of them is better than the best so far.

        Args:
            allocations: widths of the groups, by the name of the allocation.

        """
        improved = False
        for name, widths in allocations.items():
            key = tuple(sorted(widths.items()))
            if self.remaining <= 0 or key in self._seen:
                continue
            self._report(len(self._seen))
            network = recover(self._study, make_plan(self._study, widths))
            error = self._distance(network.model)
            self._seen[key] = (error, name)
            _logger.info("allocation %s: error at the outputs %.5f", name, error)
            if error < self.error:
                self.widths, self.network, self.error, improved = dict(widths), network, error, True
        return improved

    def finish(self) -> None:
        """Say that no more will be tried."""
        self._report(self._most)

    def _report(self, done: int) -> None:
        if self._study.progress is not None:
            self._study.progress(_TRYING, done, self._most)
