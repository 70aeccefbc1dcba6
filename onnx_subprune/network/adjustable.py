"""The dense network as one in which the removal of units is a matter of a few tensors: weights, biases, masks.

Removed units that no consumer reads may as well stay where they are: with the columns of the consumers' weights set to
zero, or a mask before products that have no weight, the network computes what the smaller one does. It needs no
surgery, and all that does not read these tensors computes what it computes in the dense network. Only where statistics
are taken over the units themselves (a normalisation over them) is the smaller network another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune import passes, subspace
from onnx_subprune.calibration import Statistics
from onnx_subprune.model.decisions import comparisons_of
from onnx_subprune.model.pieces import Place
from onnx_subprune.model.precision import computes_in_bfloat16
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.named_outputs import written
from onnx_subprune.network.rewrite import restructured
from onnx_subprune.network.tapped_features import grams_of, readers_of
from onnx_subprune.structure import Atom, Consumer, Contraction, Group, Structure

__all__ = ["Adjustable", "Adjustment"]

Array = NDArray[Any]
Keeps: TypeAlias = Mapping[Atom, NDArray[np.bool_]]
_FED = (np.float16, np.float32, np.float64)


@dataclass(frozen=True)
class Adjustment:
    """What differs in the network once units are removed.

    Attributes:
        constants: their new values, by name.
        factors: of what nodes read.

    """

    constants: Mapping[str, Array]
    factors: Mapping[Place, Array]


class Adjustable:
    """The dense network with a bias at each consumer that may gain one, zeros where it had none.

    Args:
        analysis: of the dense network.
        statistics: that recovery is made from; None where nothing is recovered.
        ridge: relative strength of recovery, see `subspace.recover`.

    """

    def __init__(self, analysis: Analysis, statistics: Statistics | None, ridge: float) -> None:
        self._analysis, self._statistics, self._ridge = analysis, statistics, ridge
        self._structure: Structure = restructured(analysis)
        graph = self._structure.graph
        self._biases: dict[Consumer, passes.Bias] = {}
        if statistics is not None:
            with passes.names_known(graph):
                for consumer in readers_of(self._structure):
                    self._biases[consumer] = passes.give_bias(graph, self._structure, consumer)
        self.model: onnx.ModelProto = written(graph, analysis.normalised, analysis.scratch)

    @property
    def structure(self) -> Structure:
        """The axes of the network: keep masks and groups are those of the analysis."""
        return self._structure

    @cached_property
    def _grams(self) -> dict[Consumer, NDArray[np.float64]]:
        assert self._statistics is not None
        return grams_of(self._structure, self._statistics)

    @cached_property
    def _intricate(self) -> frozenset[Atom]:
        """Units that no mask does away with: those of statistics, decisions, and tensors that are compared."""
        records = self._structure.records
        comparisons = comparisons_of(self._analysis.normalised, self._analysis.outputs_at)
        named = [decision.tensor for decision in comparisons.decisions] + [p.tensor for p in comparisons.points]
        dims = [dim for name in named for dim in records.axes.get(name, ())]
        dims += [normalisation.dim for normalisation in records.normalisations]
        dims += [dim for statistic in records.statistics for _, dim in statistic.axes]
        return frozenset(atom for dim in dims for atom in dim.atoms())

    @cached_property
    def _by_surgery(self) -> bool:
        """Whether nothing can be said without surgery: branches are run both ways, bfloat16 cannot be fed."""
        return self._analysis.hoisted is not None or computes_in_bfloat16(self.model)

    def touched(self, keeps: Keeps) -> tuple[list[str], dict[Place, Array]] | None:
        """Return the names of the constants that `without` gives, and its factors; None where it cannot.

        Args:
            keeps: for each Atom that loses units, bool [size].

        """
        if self._by_surgery or not self._intricate.isdisjoint(keeps):
            return None
        fits = self._fits(keeps)
        if any(fit.consumers[0].weight.constant.dtype not in _FED for fit in fits):
            return None
        constants = [fit.consumers[0].weight.constant.name for fit in fits]
        constants += [self._biases[consumer].constant.name for fit in fits for consumer in fit.consumers]
        return constants, self._factors(keeps, {consumer for fit in fits for consumer in fit.consumers})

    def without(self, keeps: Keeps) -> Adjustment:
        """Return what differs once units are removed, recovered by channel.

        Args:
            keeps: for each Atom that loses units, bool [size].

        """
        constants: dict[str, Array] = {}
        corrected: set[Consumer] = set()
        for pending in self._fits(keeps):
            weight, shift = passes.corrected_weight(pending.solve())
            constants[pending.consumers[0].weight.constant.name] = weight
            corrected.update(pending.consumers)
            for consumer in pending.consumers:
                bias = self._biases[consumer]
                name = bias.constant.name
                constants[name] = bias.shifted(shift, constants.get(name))
        return Adjustment(constants, self._factors(keeps, corrected))

    def _factors(self, keeps: Keeps, corrected: Collection[Consumer]) -> dict[Place, Array]:
        factors: dict[Place, Array] = {}
        for reading in self._readings(keeps, corrected):
            dtype = passes.float_type(reading.node.inputs[reading.index]) if reading.dtype is None else reading.dtype
            name = next(output.name for output in reading.node.outputs if output.name)
            factors[name, reading.index] = reading.mask.astype(dtype)
        return factors

    def _fits(self, keeps: Keeps) -> list[subspace.Pending]:
        if self._statistics is None:
            return []
        consumers = self._consumers(keeps)
        return subspace.fit_corrections(self._structure, keeps, self._grams, self._ridge, consumers)[0]

    def _readings(self, keeps: Keeps, corrected: Collection[Consumer]) -> Iterator[passes.Reading]:
        """Yield where units are read that go, but for consumers whose weights are corrected."""
        consumers = [consumer for consumer in self._consumers(keeps) if consumer not in corrected]
        contractions = self._contractions(keeps)
        return passes.losing_readings(self._structure, keeps, consumers, contractions)

    @cached_property
    def _groups(self) -> dict[Atom, Group]:
        return {group.atom: group for group in self._structure.prunable}

    def _consumers(self, keeps: Keeps) -> list[Consumer]:
        """Return the linear maps that read some units, in graph order."""
        reading = {consumer for atom in keeps for consumer in self._groups[atom].consumers}
        return [consumer for consumer in self._structure.consumers if consumer in reading]

    def _contractions(self, keeps: Keeps) -> list[Contraction]:
        """Return the products that sum over some units, in graph order."""
        summing = {contraction for atom in keeps for contraction in self._groups[atom].contractions}
        return [contraction for contraction in self._structure.contractions if contraction in summing]
