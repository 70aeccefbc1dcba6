"""The networks whose latency is measured, with the batches they are measured at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from accuracy.networks import NETWORKS as ACCURATE
from accuracy.networks import Opened

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.model import input_specs, load_model, open_session, run
from speed.pages import pages

__all__ = ["NETWORKS", "Timed"]

_SIDE = 320
_TESTED, _FIRST_TESTED = 64, 1000
# Of the probability of text, as the detector is used.
_THRESHOLD = 0.3


@dataclass(frozen=True)
class Timed:
    """A network to time.

    Attributes:
        title: its name.
        opener: called with the folder of models that are made elsewhere and with a model given by its path, or None.
        shape: of one sample of every input, without the batch.
        large: the large batch.

    """

    title: str
    opener: Callable[[Path, Path | None], Opened]
    shape: tuple[int, ...]
    large: int

    def shapes(self, opened: Opened, batch: int) -> dict[str, tuple[int, ...]]:
        """Shapes of all inputs."""
        return {spec.name: (batch, *self.shape) for spec in input_specs(opened.model)}


def _accurate(name: str) -> Callable[[Path, Path | None], Opened]:
    return lambda cache, _: ACCURATE[name].open(cache, ACCURATE[name].test)


def _detector(_: Path, path: Path | None) -> Opened:
    """A text detector of PaddleOCR, on pictures with text; its metric is how much of the text it finds like before.

    That is the intersection over union, in per cent, of what both networks take for text on pictures that were not
    calibrated on.
    """
    if path is None:
        raise SystemExit("expected --model, the path of ch_PP-OCRv4_det_infer.onnx, found none")
    model = load_model(path)
    (spec,) = input_specs(model)

    def calibration(samples: int, _: int) -> Dataset:
        return open_data({spec.name: pages(samples, _SIDE)}, [spec])

    def text_of(detector: onnx.ModelProto) -> np.ndarray:
        session = open_session(detector)
        tests = pages(_TESTED, _SIDE, _FIRST_TESTED)
        found = [run(session, {spec.name: tests[i : i + 1]}) for i in range(_TESTED)]
        return np.concatenate([next(iter(one.values())) for one in found]) > _THRESHOLD

    def evaluate(pruned: onnx.ModelProto) -> float:
        before, after = text_of(model), text_of(pruned)
        return 100 * float((before & after).sum() / (before | after).sum())

    return Opened(model, {spec.name: (1, 3, _SIDE, _SIDE)}, calibration, evaluate)


NETWORKS = {
    "resnet56": Timed("ResNet-56, 32 x 32", _accurate("resnet56"), (3, 32, 32), 64),
    "efficientnet": Timed("EfficientNet-lite0, 224 x 224", _accurate("efficientnet"), (3, 224, 224), 32),
    "minilm": Timed("all-MiniLM-L6-v2, 64 tokens", _accurate("minilm"), (64,), 32),
    "ppocr": Timed("PP-OCRv4 text detector, 320 x 320", _detector, (3, _SIDE, _SIDE), 8),
}
