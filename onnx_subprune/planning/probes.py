"""Errors at the outputs with one group pruned alone, without surgery: what is behind its consumers runs again.

The dense network runs once, piece by piece, over the samples. Where the consumers of a group begin, what is behind
them becomes a network of its own, which takes their weights as inputs: one session for all widths of the group, on
what the dense network hands over. What is not behind them is as in the dense network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.errors import ModelError
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model import Runtime, run
from onnx_subprune.model.compared_models import opened_for_comparison
from onnx_subprune.model.pieces import Behind, Place
from onnx_subprune.network.adjustable import Adjustable, Adjustment
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.planning.study import Study
from onnx_subprune.recovery.exact.activation_store import Store
from onnx_subprune.recovery.exact.segments import Segments
from onnx_subprune.structure import Atom
from onnx_subprune.threads import ahead

__all__ = ["Point", "Probes"]

Array = NDArray[Any]
Point: TypeAlias = tuple[tuple[str, int], ...]
"""Groups that are pruned, and how many units each keeps."""


@dataclass(frozen=True, eq=False)
class _Probe:
    """Groups pruned to several widths.

    Attributes:
        keeps: keep masks by the widths.
        constants: names of stored tensors that other values take the place of.
        whole: masks of ones, by the inputs of nodes that some width multiplies.
        changed: the nodes that compute something else.
        nodes: these, and those that they need and that compute with constants alone.
        fed: tensors that they read.

    """

    keeps: Mapping[Point, Mapping[Atom, NDArray[np.bool_]]]
    constants: tuple[str, ...]
    whole: Mapping[Place, Array]
    changed: Sequence[int]
    nodes: Sequence[int]
    fed: Sequence[str]


class Probes:
    """Runs networks with a group or a few pruned alone, recovered by channel.

    Args:
        study: the network, calibrated.
        distance: of other networks' outputs to its own, with samples to run them on.
        points: to measure.
        known: those of them that have been measured. Where the dense network is cut does not depend on them, so that
            errors do not either.

    Attributes:
        left: the points that only surgery can tell.

    """

    def __init__(
        self, study: Study, distance: OutputDistance, points: Iterable[Point], known: Collection[Point] = ()
    ) -> None:
        options = study.options
        self._study, self._runtime = study, options.runtime
        self._adjustable = Adjustable(
            study.analysis, None if options.recovery == "none" else study.statistics, options.ridge
        )
        reference = distance.reference
        self._points = tuple(reference.points_in(_tensors(self._adjustable.model) - reference.decision_types.keys()))
        opened = opened_for_comparison(self._adjustable.model, self._points, reference.decision_types)
        self._behind = Behind(opened)
        self._runs = distance.runs(options.probes)
        self._between = distance.between
        self._model = opened
        self._known = known
        self._factor = _unused("factor", _tensors(opened))
        self.left: list[Point] = []
        self._probes = self._prepared(points)

    def __iter__(self) -> Iterator[tuple[Point, float]]:
        """Yield the points and their errors, infinite ones too."""
        store = Store()
        options = self._study.options
        dense = Segments(self._model, store, providers=options.providers, threads=options.threads)
        for reference in self._runs:
            dense.feed({**reference.feeds, **reference.decisions})
        for probe in self._probes:
            dense.expect(probe.fed)
        try:
            with closing(ahead(self._adjusted(probe) for probe in self._probes)) as adjusted:
                for probe, adjustments in zip(self._probes, adjusted, strict=True):
                    yield from self._measured(probe, adjustments, list(dense.advance(probe.fed)))
        finally:
            store.close()

    def _prepared(self, points: Iterable[Point]) -> list[_Probe]:
        """Return the probes in the order in which the dense network comes to them."""
        alike: dict[tuple[str, ...], list[Point]] = {}
        for point in points:
            alike.setdefault(tuple(group for group, _ in point), []).append(point)
        probes: list[_Probe] = []
        for widths in alike.values():
            probe = self._probe(widths)
            if probe is None:
                self.left += [point for point in widths if point not in self._known]
            else:
                probes.append(probe)
        return sorted(probes, key=lambda probe: (probe.changed, sorted(probe.keeps)))

    def _probe(self, points: Sequence[Point]) -> _Probe | None:
        structure = self._adjustable.structure
        keeps = {point: make_plan(self._study, dict(point)).keeps(structure) for point in points}
        constants: set[str] = set()
        whole: dict[Place, Array] = {}
        for masks in keeps.values():
            touched = self._adjustable.touched(masks)
            if touched is None:
                return None
            constants.update(touched[0])
            whole |= {place: np.ones_like(mask) for place, mask in touched[1].items()}
        changed = self._behind.nodes(constants, whole)
        nodes = self._behind.with_makers(changed)
        fed = self._behind.fed(nodes)
        return _Probe(keeps, tuple(sorted(constants)), whole, changed, nodes, fed)

    def _adjusted(self, probe: _Probe) -> dict[Point, Adjustment]:
        unknown = ((point, masks) for point, masks in probe.keeps.items() if point not in self._known)
        return {point: self._adjustable.without(masks) for point, masks in unknown}

    def _measured(
        self, probe: _Probe, adjustments: Mapping[Point, Adjustment], values: Sequence[Mapping[str, Array]]
    ) -> Iterator[tuple[Point, float]]:
        if not all(isinstance(batch.get(name), np.ndarray) for batch in values for name in probe.fed):
            # A sequence, or of a type that NumPy does not know.
            self.left += adjustments
            return
        factors = {place: f"{self._factor}.{number}" for number, place in enumerate(sorted(probe.whole))}
        session: ort.InferenceSession | None = None
        for point, adjustment in adjustments.items():
            given = self._given(probe, adjustment, factors)
            if session is None:
                session = self._session(probe, values, given, factors)
            outputs = (run(session, {**batch, **given}) for batch in values)
            compared = (
                (reference, {n: reference.values[n] for n in self._points if n in reference.values} | changed)
                for reference, changed in zip(self._runs, outputs, strict=True)
            )
            yield point, self._between(compared)

    def _given(self, probe: _Probe, adjustment: Adjustment, factors: Mapping[Place, str]) -> dict[str, Array]:
        """Return the weights, biases and masks of a width; those that it leaves alone as they are."""
        constants = adjustment.constants
        given = {n: constants[n] if n in constants else self._behind.stored(n) for n in probe.constants}
        # What a width leaves whole is multiplied by one.
        masks = {**probe.whole, **adjustment.factors}
        return given | {name: masks[place] for place, name in factors.items()}

    def _session(
        self,
        probe: _Probe,
        values: Sequence[Mapping[str, Array]],
        given: Mapping[str, Array],
        factors: Mapping[Place, str],
    ) -> ort.InferenceSession:
        runtime: Runtime = self._runtime
        weights = [_value_info(name, [array], sized=True) for name, array in given.items()]
        for sized in (True, False):
            # Known sizes matter: of a shape that is computed, the runtime must know how many axes it has. But they
            # may contradict a branch that is not taken for tensors of such sizes.
            inputs = [_value_info(name, [batch[name] for batch in values], sized=sized) for name in probe.fed]
            try:
                return runtime.session(self._behind.piece(probe.nodes, [*inputs, *weights], factors))
            except ModelError:
                if not sized:
                    raise
        raise AssertionError


def _tensors(model: onnx.ModelProto) -> set[str]:
    made = {name for node in model.graph.node for name in node.output}
    return made | {value.name for value in model.graph.input}


def _unused(prefix: str, names: Collection[str]) -> str:
    """Return a prefix that no name begins with."""
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _value_info(name: str, arrays: Sequence[Array], *, sized: bool) -> onnx.ValueInfoProto:
    """Return the declaration of a tensor that takes these values."""
    first = arrays[0]
    sizes = [
        size if sized and all(array.shape[axis] == size for array in arrays) else None
        for axis, size in enumerate(first.shape)
    ]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(first.dtype), sizes)
