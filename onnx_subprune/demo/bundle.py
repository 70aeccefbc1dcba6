"""A trained classifier with its calibration and test images, read from the package's own files.

`demo.onnx` is a residual CNN (0.3 million parameters, BatchNormalization nodes unfolded) trained on Fashion-MNIST by
`tools/train_demo.py`: input `image` float32 [N, 1, 28, 28], output `logits` float32 [N, 10].

`demo.npz` holds 28 x 28 grey-scale images of Fashion-MNIST (Zalando SE, 2017, MIT licence: see the file
FASHION_MNIST_LICENSE beside this module; https://github.com/zalandoresearch/fashion-mnist):

- `calibration` uint8 [512, 28, 28]: a random sample of the training images, without labels;
- `test` uint8 [1000, 28, 28] and `labels` uint8 [1000]: a random sample of the test images with their classes;
- `mean`, `std` float32: those of a training pixel scaled to [0, 1].

The model expects normalised pixels, x = (pixel / 255 - mean) / std.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_subprune.errors import DataError

INPUT_NAME = "image"
MODEL_FILE = "demo.onnx"
DATA_FILE = "demo.npz"


@dataclass(frozen=True, eq=False)
class Demo:
    """A model file with inputs for it.

    `calibration` and `test` map the model's one input, `image`, to normalised float32 arrays [512, 1, 28, 28] and
    [1000, 1, 28, 28]; `labels` int64 [1000] are the classes (0 to 9) of the test images.
    """

    model_path: Path
    calibration: dict[str, np.ndarray[Any, Any]]
    test: dict[str, np.ndarray[Any, Any]]
    labels: npt.NDArray[np.int64]


def load_demo() -> Demo:
    """Read the demo's files from the installed package.

    Raises
    ------
    DataError
        The installation lacks one of the files.

    """
    model_path, data_path = _packaged(MODEL_FILE), _packaged(DATA_FILE)
    with np.load(data_path, allow_pickle=False) as data:
        mean, std = data["mean"], data["std"]
        return Demo(
            model_path=model_path,
            calibration={INPUT_NAME: _normalise(data["calibration"], mean, std)},
            test={INPUT_NAME: _normalise(data["test"], mean, std)},
            labels=data["labels"].astype(np.int64),
        )


def _packaged(name: str) -> Path:
    path = Path(str(resources.files("onnx_subprune.demo") / name))
    if not path.is_file():
        raise DataError(f"expected {name} in the installed package, found no file {path}; reinstall onnx-subprune")
    return path


def _normalise(
    images: npt.NDArray[np.uint8], mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Grey values uint8 [N, H, W] -> float32 [N, 1, H, W] of mean 0 and standard deviation 1."""
    scaled = images[:, None].astype(np.float32) / np.float32(255)
    return (scaled - mean) / std
