"""Real images as network inputs: CIFAR-10 for its ResNets, ImageNet images for EfficientNet-lite0.

The files are not part of the project. They are looked for in the folder named by ONNX_SUBPRUNE_DATA, else in
`../shared/data` beside the project; its MANIFEST.md says where each comes from and under which licence.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Images", "cifar10", "cifar10_resized", "data_folder", "imagenet_samples", "imagenette"]

Bytes = NDArray[np.uint8]

_CIFAR_TILE, _CIFAR_TILES = 32, 100
# Statistics of ImageNet in units of 1/255, which these CIFAR ResNets were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LITE_SIZE, _LITE_MEAN, _LITE_STD = 224, 127.0, 128.0


class Images(NamedTuple):
    """Inputs of a network, float32 [samples, 3, height, width], and their classes, int64 [samples]."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def data_folder() -> Path:
    """Return the folder of real networks and data; FileNotFoundError if it is not there."""
    named = os.environ.get("ONNX_SUBPRUNE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "MANIFEST.md").is_file():
        raise FileNotFoundError(f"expected the real data at {folder}, found none; set ONNX_SUBPRUNE_DATA to its folder")
    return folder


def cifar10(split: str, count: int | None = None, folder: Path | None = None) -> Images:
    """Return the first `count` images of `train` or `test` (10,000 each, every prefix mixes the classes)."""
    pixels, labels = _cifar10_pixels(split, count, folder)
    return Images(_channels_first(pixels, *_imagenet_scale()), labels)


def cifar10_resized(split: str, side: int, count: int | None = None, folder: Path | None = None) -> Images:
    """Return the images of `cifar10` resized to `side` pixels (bicubic), as the vision transformer takes them."""
    pixels, labels = _cifar10_pixels(split, count, folder)
    wide = [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in pixels]
    return Images(_channels_first(np.stack(wide), *_imagenet_scale()), labels)


def _cifar10_pixels(split: str, count: int | None, folder: Path | None) -> tuple[Bytes, NDArray[np.int64]]:
    stem = (folder or data_folder()) / "cifar10" / f"cifar10_{split}10000"
    with Image.open(stem.with_name(f"{stem.name}_sheet.webp")) as sheet:
        pixels = _tiles(np.asarray(sheet.convert("RGB")))[:count]
    return pixels, np.load(stem.with_name(f"{stem.name}_labels.npy"))[:count].astype(np.int64)


def _imagenet_scale() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _affine(255.0 * np.array(_MEAN), 255.0 * np.array(_STD))


def imagenet_samples(count: int | None = None, folder: Path | None = None) -> Images:
    """Return the first `count` of 1,000 images, one of each class in order."""
    return _archive((folder or data_folder()) / "imagenet" / "imagenet1k_sample_256_webp90.npz", "webp", count)


def imagenette(count: int | None = None, folder: Path | None = None) -> Images:
    """Return the first `count` of 1,500 images of ten classes, with labels of the 1,000 classes."""
    return _archive((folder or data_folder()) / "imagenet" / "imagenette_train1500_jpeg.npz", "jpeg", count)


def _tiles(sheet: Bytes) -> Bytes:
    """Cut a sheet of 100 x 100 tiles, row by row: [10000, 32, 32, 3]."""
    grid = sheet.reshape(_CIFAR_TILES, _CIFAR_TILE, _CIFAR_TILES, _CIFAR_TILE, 3)
    return grid.swapaxes(1, 2).reshape(-1, _CIFAR_TILE, _CIFAR_TILE, 3)


def _archive(path: Path, member: str, count: int | None) -> Images:
    """Decode images that lie end to end in one array, cut at `offsets`."""
    with np.load(path) as archive:
        stream, offsets, labels = archive[member], archive["offsets"], archive["labels"][:count]
    bounds = zip(offsets[:-1][:count], offsets[1:][:count], strict=True)
    pixels = np.stack([_centre(stream[start:stop]) for start, stop in bounds])
    scale, offset = _affine(np.full(3, _LITE_MEAN), np.full(3, _LITE_STD))
    return Images(_channels_first(pixels, scale, offset), labels.astype(np.int64))


def _centre(encoded: Bytes) -> Bytes:
    with Image.open(io.BytesIO(encoded.tobytes())) as image:
        left, top = ((side - _LITE_SIZE) // 2 for side in image.size)
        return np.asarray(image.convert("RGB").crop((left, top, left + _LITE_SIZE, top + _LITE_SIZE)))


def _affine(mean: NDArray[Any], std: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return (1.0 / std).astype(np.float32), (-mean / std).astype(np.float32)


def _channels_first(pixels: Bytes, scale: NDArray[np.float32], offset: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, height, width, 3] bytes to [N, 3, height, width] floats, scaled by channel."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes
