"""How far a network's outputs are from those of the dense network, on samples held out: the measure of all choices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset, portions
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork, ReferenceRun
from onnx_subprune.model import Runtime

__all__ = ["OutputDistance", "Version"]

Array = np.ndarray[Any, Any]

Version: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Makes a version of a network, such as one that takes the same branch every time."""

_MAX_BYTES = 1 << 28


class _Reference(NamedTuple):
    """One run of the dense network, and how many samples it is of."""

    run: ReferenceRun
    samples: int


class OutputDistance:
    """The relative squared error at the comparison points, ‖p - d‖² / ‖d‖², the mean over the points.

    The points are the outputs, but for those of networks that decide or saturate (`model.decisions`). The dense network
    is run once, when the first other one is measured. Where networks have branches, each may be compared in several
    versions, one for either branch, as far as the dense network runs in them.

    Args:
        dense: the dense network.
        dataset: calibration samples; those held out are taken, all where they are too few to hold any out.
        runtime: where networks run, and with how many samples at once.
        samples: how many at most, but for the rest of a run; fewer where the outputs are large.
        at: tensors to compare at, in the place of the points that follow from the outputs.
        versions: make other versions of a network to compare too.

    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        dataset: Dataset,
        runtime: Runtime,
        samples: int,
        *,
        at: Sequence[str] = (),
        versions: Sequence[Version] = (),
    ) -> None:
        self._dense = dense
        self._at = at
        self._dataset, self._runtime, self._samples = dataset, runtime, samples
        self._versions = versions

    @cached_property
    def holds_out(self) -> bool:
        """Whether there are samples held out, by which fits are chosen (their last solutions have seen them too)."""
        return any(portion.held for portion in portions(self._dataset, self._runtime.batch_size))

    @property
    def judged(self) -> int:
        """How many samples networks are judged by."""
        _, _, references = self._references[0]
        return sum(reference.samples for reference in references)

    def __call__(self, model: onnx.ModelProto, samples: int | None = None) -> float:
        """Return the error of a network's outputs; infinite where they are not finite.

        Args:
            model: takes the same inputs and gives the same outputs as the dense network.
            samples: the first so many, and the rest of the last run; all by default.

        """
        ratios: list[float] = []
        for version, dense, references in self._references:
            network = ComparedNetwork(model if version is None else version(model), dense)
            ratios += _ratios((reference.run, network.run(reference.run)) for reference in _first(references, samples))
        return _mean(ratios)

    @property
    def reference(self) -> ReferenceNetwork:
        """The dense network, as other networks are compared with it."""
        return self._references[0][1]

    def runs(self, samples: int | None = None) -> list[ReferenceRun]:
        """Return runs of the dense network.

        Args:
            samples: the first so many, and the rest of the last run; all by default.

        """
        return [reference.run for reference in _first(self._references[0][2], samples)]

    @staticmethod
    def between(compared: Iterable[tuple[ReferenceRun, Mapping[str, Array]]]) -> float:
        """Return the error of values at the points; infinite where they are not finite.

        Args:
            compared: runs of the dense network, and the values of another one on the same samples, by tensor.

        """
        return _mean(_ratios(compared))

    @cached_property
    def _references(self) -> list[tuple[Version | None, ReferenceNetwork, list[_Reference]]]:
        dense = ReferenceNetwork(self._dense, self._runtime, self._at)
        references: list[tuple[Version | None, ReferenceNetwork, list[_Reference]]] = [(None, dense, self._runs(dense))]
        for version in self._versions:
            # What follows on a branch that is not taken on these samples may not run on what it gives.
            with contextlib.suppress(DataError, ModelError):
                other = ReferenceNetwork(version(self._dense), self._runtime, self._at)
                references.append((version, other, self._runs(other)))
        return references

    def _runs(self, dense: ReferenceNetwork) -> list[_Reference]:
        references: list[_Reference] = []
        samples = size = 0
        for portion in portions(self._dataset, self._runtime.batch_size):
            if samples >= self._samples or size > _MAX_BYTES:
                break
            if portion.held or not self.holds_out:
                references.append(_Reference(dense.run(portion.feeds), portion.samples))
                size += references[-1].run.nbytes
                samples += portion.samples
        return references


def _ratios(compared: Iterable[tuple[ReferenceRun, Mapping[str, Array]]]) -> list[float]:
    """Return the relative squared error of a network at every point."""
    errors: dict[str, float] = {}
    squares: dict[str, float] = {}
    for reference, outputs in compared:
        for name, output in outputs.items():
            value = reference.values[name]
            if value.dtype.kind != "f":
                continue
            finite = np.isfinite(value)
            difference = np.where(finite, output - np.where(finite, value, 0), 0).astype(np.float64)
            errors[name] = errors.get(name, 0.0) + float(np.vdot(difference, difference))
            squares[name] = squares.get(name, 0.0) + float(np.square(value[finite], dtype=np.float64).sum())
    return [errors[name] / squares[name] for name in errors if squares[name] > 0]


def _mean(ratios: Sequence[float]) -> float:
    mean = float(np.mean(ratios)) if ratios else 0.0
    return mean if np.isfinite(mean) else float("inf")


def _first(references: list[_Reference], samples: int | None) -> Iterator[_Reference]:
    """Yield references until they hold so many samples; all for None."""
    for reference in references:
        if samples is not None and samples <= 0:
            return
        yield reference
        samples = None if samples is None else samples - reference.samples
