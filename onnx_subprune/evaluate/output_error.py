"""How far a network's outputs have moved from the dense network's, on samples held out: what choices are made by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset, portions
from onnx_subprune.model import open_session, run
from onnx_subprune.options import Options

__all__ = ["Departure"]

Array = np.ndarray[Any, Any]

_MAX_BYTES = 1 << 28


class _Reference(NamedTuple):
    """Inputs of one run, how many samples they are, and the dense network's outputs that are numbers."""

    feeds: Mapping[str, Array]
    samples: int
    outputs: Mapping[str, Array]


class Departure:
    """The relative squared error of outputs, ‖p - d‖² / ‖d‖², the mean over the outputs that are numbers.

    The dense network is run once, when the first other one is measured.

    Args:
        dense: the dense network.
        dataset: calibration samples; those held out are taken, all where they are too few to hold any out.
        options: where and how to run.
        samples: how many at most, but for the rest of a run; fewer where the outputs are large.

    """

    def __init__(self, dense: onnx.ModelProto, dataset: Dataset, options: Options, samples: int) -> None:
        self._dense, self._dataset, self._options, self._samples = dense, dataset, options, samples

    @cached_property
    def held(self) -> bool:
        """Whether there are samples held out, by which fits are chosen (their last solutions have seen them too)."""
        return any(portion.held for portion in portions(self._dataset, self._options.batch_size))

    def __call__(self, model: onnx.ModelProto, samples: int | None = None) -> float:
        """Return the error of a network, on the first `samples`; infinite where its outputs are not finite."""
        session = open_session(model, self._options.providers, threads=self._options.threads)
        errors: dict[str, float] = {}
        squares: dict[str, float] = {}
        for feeds, _, expected in _first(self._references, samples):
            found = run(session, feeds, list(expected))
            for name, value in expected.items():
                finite = np.isfinite(value)
                difference = np.where(finite, found[name] - np.where(finite, value, 0), 0).astype(np.float64)
                errors[name] = errors.get(name, 0.0) + float(np.vdot(difference, difference))
                squares[name] = squares.get(name, 0.0) + float(np.square(value[finite], dtype=np.float64).sum())
        ratios = [errors[name] / squares[name] for name in errors if squares[name] > 0]
        mean = float(np.mean(ratios)) if ratios else 0.0
        return mean if np.isfinite(mean) else float("inf")

    @cached_property
    def _references(self) -> list[_Reference]:
        session = open_session(self._dense, self._options.providers, threads=self._options.threads)
        found: list[_Reference] = []
        left, held = self._samples, 0
        for portion in portions(self._dataset, self._options.batch_size):
            if left <= 0 or held > _MAX_BYTES:
                break
            if portion.held or not self.held:
                outputs = {n: value for n, value in run(session, portion.feeds).items() if value.dtype.kind == "f"}
                found.append(_Reference(portion.feeds, portion.samples, outputs))
                held += sum(value.nbytes for value in outputs.values())
                left -= portion.samples
        return found


def _first(references: list[_Reference], samples: int | None) -> Iterator[_Reference]:
    """Yield references until they hold so many samples; all for None."""
    for reference in references:
        if samples is not None and samples <= 0:
            return
        yield reference
        samples = None if samples is None else samples - reference.samples
