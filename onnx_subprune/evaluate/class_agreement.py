"""How often a network answers with the classes of the dense network, which is run once for all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.calibration import Dataset
from onnx_subprune.evaluate.agreement import largest_classes
from onnx_subprune.evaluate.anchor_boxes import anchor_boxes
from onnx_subprune.evaluate.detections import DetectionLayout
from onnx_subprune.model import Runtime, run
from onnx_subprune.model.compared_models import opened_for_comparison, seeded

__all__ = ["ClassAgreement"]

Array = NDArray[Any]
_Classes = dict[str, list[Array]]


class ClassAgreement:
    """Compares the classes of networks with those of the dense one, on the same samples.

    Where the dense network has outputs [samples, classes], these alone count; otherwise the classes of every step of a
    sequence, of every pixel of a map, and integers. Where tensors are named, all of them count.

    Args:
        dense: the reference.
        data: the samples; all of them are compared.
        runtime: where networks run, and with how many samples at once.
        at: tensors that the networks have, whose classes are compared in the place of those of outputs.

    """

    def __init__(self, dense: onnx.ModelProto, data: Dataset, runtime: Runtime, at: Sequence[str] = ()) -> None:
        self._dense, self._data, self._runtime, self._at = dense, data, runtime, at

    def __call__(self, model: onnx.ModelProto) -> float | None:
        """Return the share of samples, steps or pixels whose class is the same: the least of all outputs that count.

        Args:
            model: takes the same inputs and gives the same outputs as the dense network. An output whose size it
                decides otherwise agrees nowhere in that run.

        Returns:
            A share in [0, 1]; None where the dense network has no such output, or a named tensor holds no classes.

        """
        dense = self._dense_classes
        if not dense:
            return None
        agreed = dict.fromkeys(dense, 0)
        for place, outputs in enumerate(self._outputs(model, list(dense))):
            for name, value in outputs.items():
                classes, expected = largest_classes(name, value), dense[name][place]
                if classes is not None and classes.shape == expected.shape:
                    agreed[name] += int(np.sum(expected == classes))
        return min(count / sum(classes.size for classes in dense[name]) for name, count in agreed.items())

    @cached_property
    def _dense_classes(self) -> _Classes:
        """The classes of every output that has them in all runs, a run each."""
        scores: _Classes = {}
        others: _Classes = {}
        without: set[str] = set()
        anchors = anchor_boxes(self._dense)
        for outputs in self._outputs(self._dense):
            numbers = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}
            layout = DetectionLayout.found_in(numbers, anchors)
            without |= outputs.keys() - numbers.keys() | (layout.outputs if layout is not None else frozenset())
            for name, value in numbers.items():
                classes = largest_classes(name, value)
                if classes is None:
                    without.add(name)
                else:
                    rows = value.dtype.kind == "f" and value.ndim == 2 and not self._at
                    (scores if rows else others).setdefault(name, []).append(classes)
        if without.intersection(self._at):
            return {}
        for counted in (scores, others):
            kept = {name: runs for name, runs in counted.items() if name not in without and any(map(np.size, runs))}
            if kept:
                return kept
        return {}

    def _outputs(self, model: onnx.ModelProto, names: list[str] | None = None) -> Iterator[dict[str, Array]]:
        opened = opened_for_comparison(model, self._at) if self._at else seeded(model)
        session = self._runtime.session(opened)
        for feeds in self._data.batches(self._runtime.batch_size):
            yield run(session, feeds, names)
