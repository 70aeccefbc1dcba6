"""How often the largest class of a network's outputs is that of the dense network, which is run once for all others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.calibration import Dataset
from onnx_subprune.model import Runtime, run

__all__ = ["ClassAgreement"]

Array = NDArray[Any]
_Classes = dict[str, NDArray[np.intp]]


class ClassAgreement:
    """Compares the largest classes of networks with those of the dense one, on the same samples.

    Args:
        dense: the reference.
        data: the samples; all of them are compared.
        runtime: where networks run, and with how many samples at once.

    """

    def __init__(self, dense: onnx.ModelProto, data: Dataset, runtime: Runtime) -> None:
        self._dense, self._data, self._runtime = dense, data, runtime

    def __call__(self, model: onnx.ModelProto) -> float | None:
        """Return the share of samples whose largest class is the same: the least of all outputs [samples, classes].

        Args:
            model: takes the same inputs and gives the same outputs as the dense network.

        Returns:
            A share in [0, 1]; None where the dense network has no such output.

        """
        dense = self._dense_classes
        if not dense:
            return None
        agreed = dict.fromkeys(dense, 0)
        first = 0
        for outputs in self._outputs(model, list(dense)):
            rows = 0
            for name, scores in outputs.items():
                rows = len(scores)
                agreed[name] += int(np.sum(dense[name][first : first + rows] == scores.argmax(axis=1)))
            first += rows
        return min(count / len(dense[name]) for name, count in agreed.items())

    @cached_property
    def _dense_classes(self) -> _Classes:
        """The largest classes [samples] of every output that is [samples, classes] for all samples."""
        batches: dict[str, list[NDArray[np.intp]]] = {}
        others: set[str] = set()
        for outputs in self._outputs(self._dense):
            for name, scores in outputs.items():
                if _has_classes(scores):
                    batches.setdefault(name, []).append(scores.argmax(axis=1))
                else:
                    others.add(name)
        return {name: np.concatenate(classes) for name, classes in batches.items() if name not in others}

    def _outputs(self, model: onnx.ModelProto, names: list[str] | None = None) -> Iterator[dict[str, Array]]:
        session = self._runtime.session(model)
        for feeds in self._data.batches(self._runtime.batch_size):
            yield run(session, feeds, names)


def _has_classes(scores: Any) -> bool:
    return isinstance(scores, np.ndarray) and scores.dtype.kind == "f" and scores.ndim == 2 and scores.shape[1] > 1
