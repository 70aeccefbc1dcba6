"""Real networks and images, loaded once for the whole folder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.model import load_model

FOLDERS = {"resnet": "cifar10", "efficientnet": "imagenet"}


@pytest.fixture(scope="session")
def datasets() -> ModuleType:
    """Return the module tools/datasets.py, which no import path reaches."""
    path = Path(__file__).resolve().parents[2] / "tools" / "datasets.py"
    spec = importlib.util.spec_from_file_location("onnx_subprune_tools_datasets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def network(data_dir: Path) -> Callable[[str], onnx.ModelProto]:
    """`network("resnet56_cifar10_ts17")`: the loaded model; tests must not change it."""

    @cache
    def load(name: str) -> onnx.ModelProto:
        (folder,) = (folder for prefix, folder in FOLDERS.items() if name.startswith(prefix))
        return load_model(data_dir / folder / f"{name}.onnx")

    return load


@pytest.fixture(scope="session")
def calibration(data_dir: Path, datasets: ModuleType) -> Callable[[str, int], dict[str, np.ndarray]]:
    """`calibration("resnet56_cifar10_ts17", 64)`: the first training images, as calibration data for the network."""

    def images(name: str, count: int) -> dict[str, np.ndarray]:
        resnet = name.startswith("resnet")
        found = datasets.cifar10("train", count, data_dir) if resnet else datasets.imagenet_samples(count, data_dir)
        return {"input": found.inputs}

    return images
