"""The loaders of real images: what they give is what the networks were trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate import top1
from onnx_subprune.model import input_specs

Network = Callable[[str], onnx.ModelProto]


@pytest.mark.parametrize(("loader", "side"), [("cifar10", 32), ("imagenet_samples", 224), ("imagenette", 224)])
def test_images_fit_a_network(datasets: ModuleType, data_dir: Path, loader: str, side: int) -> None:
    arguments = ("train",) if loader == "cifar10" else ()
    inputs, labels = getattr(datasets, loader)(*arguments, 6, data_dir)
    assert inputs.shape == (6, 3, side, side)
    assert inputs.dtype == np.float32
    assert inputs.flags.c_contiguous
    assert 0.2 < inputs.std() < 2
    assert labels.shape == (6,)
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "loader", "arguments", "floor"),
    [
        ("resnet32_cifar10_ts17", "cifar10", ("test", 200), 0.9),
        ("efficientnet_lite0_dynamo18", "imagenet_samples", (30,), 0.8),
        ("efficientnet_lite0_dynamo18", "imagenette", (100,), 0.6),
    ],
)
def test_networks_recognise_the_images(
    network: Network,
    datasets: ModuleType,
    data_dir: Path,
    name: str,
    loader: str,
    arguments: tuple[object, ...],
    floor: float,
) -> None:
    inputs, labels = getattr(datasets, loader)(*arguments, folder=data_dir)
    model = network(name)
    assert top1(model, open_data({"input": inputs, "labels": labels}, input_specs(model))).accuracy > floor


def test_splits_share_no_image(datasets: ModuleType, data_dir: Path) -> None:
    train, test = (datasets.cifar10(split, 2000, data_dir).inputs.reshape(2000, -1) for split in ("train", "test"))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_a_missing_folder_is_named(datasets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SUBPRUNE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="ONNX_SUBPRUNE_DATA"):
        datasets.data_folder()
