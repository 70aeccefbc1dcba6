"""How far a network's outputs have moved away from the dense network's, on a few samples: what choices are made by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.options import Options

__all__ = ["HELD", "Departure"]

Array = np.ndarray[Any, Any]

HELD = 5
"""One calibration sample in so many is held out where fits are chosen between; all of them are fitted on in the end."""
_MAX_BYTES = 1 << 28


class Departure:
    """The relative squared error of outputs, ‖p - d‖² / ‖d‖², the mean over the outputs that are numbers.

    Args:
        dense: the dense network.
        dataset: calibration samples; those held out are taken.
        options: where and how to run.
        samples: how many at most; fewer where the outputs are large.

    """

    def __init__(self, dense: onnx.ModelProto, dataset: Dataset, options: Options, samples: int) -> None:
        self._options = options
        self._feeds: list[Mapping[str, Array]] = []
        self._expected: list[dict[str, Array]] = []
        session = open_session(dense, options.providers, threads=options.threads)
        held = 0
        for feeds, count in _held_out(dense, dataset, options.batch_size, samples):
            outputs = {name: value for name, value in run(session, feeds).items() if value.dtype.kind == "f"}
            self._feeds.append(feeds)
            self._expected.append(outputs)
            held += sum(value.nbytes for value in outputs.values())
            samples -= count
            if samples <= 0 or held > _MAX_BYTES:
                break

    def __call__(self, model: onnx.ModelProto) -> float:
        """Return the error of a network; infinite where its outputs are not finite."""
        session = open_session(model, self._options.providers, threads=self._options.threads)
        errors: dict[str, float] = {}
        squares: dict[str, float] = {}
        for feeds, expected in zip(self._feeds, self._expected, strict=True):
            found = run(session, feeds, list(expected))
            for name, value in expected.items():
                finite = np.isfinite(value)
                difference = np.where(finite, found[name] - np.where(finite, value, 0), 0).astype(np.float64)
                errors[name] = errors.get(name, 0.0) + float(np.vdot(difference, difference))
                squares[name] = squares.get(name, 0.0) + float(np.square(value[finite], dtype=np.float64).sum())
        ratios = [errors[name] / squares[name] for name in errors if squares[name] > 0]
        mean = float(np.mean(ratios)) if ratios else 0.0
        return mean if np.isfinite(mean) else float("inf")


def _held_out(
    model: onnx.ModelProto, dataset: Dataset, batch_size: int, most: int
) -> Iterator[tuple[Mapping[str, Array], int]]:
    """Yield batches of samples that are held out; whole batches where the model fixes their size."""
    sliceable = all(spec.shape and not isinstance(spec.shape[0], int) for spec in input_specs(model))
    seen = 0
    batches = dataset.batches(batch_size)
    for index, feeds in enumerate(batches):
        count = dataset.samples_in(feeds)
        rows = np.flatnonzero((seen + np.arange(count)) % HELD == HELD - 1)[:most]
        seen += count
        if sliceable and count > 1:
            if len(rows):
                yield {name: value[rows] for name, value in feeds.items()}, len(rows)
        elif index % HELD == HELD - 1:
            yield feeds, count
    if seen < HELD:
        # Too few to hold any out.
        yield from ((feeds, dataset.samples_in(feeds)) for feeds in islice(dataset.batches(batch_size), most))
