"""Two networks side by side where the first one decides, or saturates, before its outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError, SubpruneError
from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork
from onnx_subprune.model import Runtime
from onnx_subprune.model.compared_models import comparable_tensors
from onnx_subprune.model.named_points import check_points

__all__ = ["DecidedRuns", "DecidedValues"]

logger = logging.getLogger(__name__)

Array = NDArray[Any]

DecidedValues: TypeAlias = tuple[Mapping[str, Array], Mapping[str, Array]]
"""Values of the dense and of the pruned network in one run, by tensor."""

# Rounding to integers decides as well, but entry by entry: a quantised network is compared as it is.
_QUANTISING = ("DynamicQuantizeLinear", "QuantizeLinear")


class DecidedRuns:
    """Runs of both networks with the decisions of the dense one, where it decides or has points inside.

    Args:
        dense: the reference.
        pruned: the network that is compared with it.
        runtime: where both run.
        outputs_at: tensors to compare at, in the place of the points that follow from the outputs.

    Attributes:
        interior: the reasons of the points inside, by tensor.
        replaced: for outputs that saturate or decide, the points inside at which networks are compared in their place.
        decisions: names of the tensors that the dense network decides.

    Raises:
        OptionError: networks cannot be compared at one of `outputs_at`.
        ModelError: the pruned network lacks one of them.

    """

    def __init__(
        self, dense: onnx.ModelProto, pruned: onnx.ModelProto, runtime: Runtime, outputs_at: Sequence[str]
    ) -> None:
        self._reference = ReferenceNetwork(dense, runtime, outputs_at)
        comparisons = self._reference.comparisons
        quantised = any(decision.operator in _QUANTISING for decision in comparisons.decisions)
        self.decisions = frozenset(() if quantised else (decision.tensor for decision in comparisons.decisions))
        if outputs_at and quantised:
            raise OptionError(
                "expected a float model first to compare at tensors inside, found a quantised one; compare at outputs"
            )
        check_points(dense, outputs_at)
        outputs = {value.name for value in dense.graph.output}
        # A tensor that was named and is missing is an error.
        there = comparable_tensors(pruned).union(outputs_at)
        self.interior = {
            point.tensor: point.reason
            for point in (() if quantised else comparisons.points)
            if point.reason is not None and point.tensor in there - outputs - self.decisions
        }
        own = {point.tensor for point in comparisons.points}
        self.replaced = {
            output: inside
            for output in sorted(outputs - own)
            if (
                inside := tuple(
                    at.tensor for at in comparisons.points if output in at.outputs and at.tensor in self.interior
                )
            )
        }
        self._compared: ComparedNetwork | None = None
        if self.interior or self.decisions:
            at = (*self.interior, *self._reference.outputs)
            try:
                self._compared = ComparedNetwork(pruned, self._reference, at=at)
            except SubpruneError as error:
                self._give_up(error)

    def run(self, feeds: Mapping[str, Array]) -> DecidedValues | None:
        """Return the values of both networks at outputs and points; None where they are those of plain runs."""
        if self._compared is None:
            return None
        try:
            reference = self._reference.run(feeds)
            return reference.values, self._compared.run(reference)
        except SubpruneError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: SubpruneError) -> None:
        if self._reference.named:
            raise error
        logger.warning("the networks are compared without the dense one's decisions given: %s", error)
        self._compared = None
